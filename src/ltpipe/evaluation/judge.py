"""Stages `judge` and `gate`: the mean over seeds against the accepted baseline and against the reported value.

A comparison that cannot be made is not a pass: it has the verdict `incomparable` and its reason, and the gate fails.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.evaluation import baseline as accepted_files
from ltpipe.evaluation.margin import LEVEL, cluster_sums, margins, simulate
from ltpipe.evaluation.metrics.measure import Evaluation, flatten
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table

METRIC = re.compile(rf"\w+\.accuracy\.(all|{'|'.join(GROUPS)})")
PASSING = ("pass", "improved", "unreported", "not judged")


class Gate(Spec):
    """metrics: "<protocol>.accuracy.<group>" paths that gate. against: nothing judges nothing, and says so."""

    metrics: list[str] = Field(min_length=1)
    against: Literal["accepted", "nothing"] = "accepted"
    runs: list[str] | None = Field(None, description="runs that gate; default: all")
    level: float = Field(LEVEL, gt=0, lt=1, description="probability with which unchanged code passes")

    def concerns(self, run: str) -> bool:
        """The run's numbers are compared."""
        return self.against == "accepted" and (self.runs is None or run in self.runs)

    @model_validator(mode="after")
    def _accuracies(self) -> "Gate":
        wrong = [m for m in self.metrics if not METRIC.fullmatch(m)]
        if wrong:
            valid = f"<protocol>.accuracy.<all or a group>: {', '.join(('all', *GROUPS))}"
            raise ValueError(f"not {valid}: {', '.join(wrong)}")
        return self


class Reported(Spec):
    """A number from a paper, or why there is none. `gates`: a shortfall beyond `tolerance` fails the gate.

    value: in percent, of the metric path `metric`. Noise never widens the tolerance: where two standard errors exceed
    it the verdict is `inconclusive`, and only `pass` is a pass.
    """

    label: str | None = Field(None, description="the paper's name of the run; the run's key stays snake_case")
    value: float | None = Field(None, ge=0, le=100)
    metric: str | None = None
    tolerance: float | None = Field(None, gt=0)
    source: str | None = None
    gates: bool = False
    why: str | None = Field(None, description="why there is no value, or why it does not gate")

    @model_validator(mode="after")
    def _complete(self) -> "Reported":
        if self.value is not None and not (self.metric and self.tolerance and self.source):
            raise ValueError("a reported value needs metric, tolerance and source")
        if self.value is not None and not self.gates and not self.why:
            raise ValueError("a number that does not gate needs a reason: why")
        if self.gates and self.value is None:
            raise ValueError("gates: true needs a value")
        return self


class SharedReported(Spec):
    """What the `reported` blocks of all runs share, unless they say otherwise."""

    metric: str | None = Field(None, description="metric path of the reported values")
    tolerance: float | None = Field(None, gt=0, description="tolerance of the reported values, in percentage points")
    why: str | None = Field(None, description="why a run without a value has none")

    def fill(self, reported: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run's block with what it shares filled in."""
        shared = self.model_dump(exclude_none=True)
        taken = ("why",) if reported.get("value") is None else ("metric", "tolerance")
        return {key: value for key, value in shared.items() if key in taken} | dict(reported)


class GateFailed(Refused):
    """The gate: the message names every number that failed."""

    exit_code = 3


def summarise(reported: Reported, *cells: Mapping[str, Any]) -> dict[str, Any]:
    """n, mean and std over the seeds of one run, and the verdict on its reported value."""
    values = [flatten(cell["protocols"]) for cell in cells]
    table = {
        key: {
            "mean": float(np.mean(found)),
            "std": float(np.std(found, ddof=1)) if len(found) > 1 else None,
            "values": found,
        }
        for key in values[0]
        for found in [[v[key] for v in values]]
    }
    return {
        "run": cells[0]["cell"].rsplit(".", 2)[1],
        "n": len(cells),
        "seeds": [cell["seed"] for cell in cells],
        "data": sorted({cell["data"] for cell in cells}),
        "code": sorted({cell["code"] for cell in cells}),
        "metrics": table,
        "reported": against_reported(reported, table, len(cells)),
    }


def against_reported(reported: Reported, table: Mapping[str, Mapping[str, Any]], n: int) -> dict[str, Any]:
    """The verdict on a paper's number: pass, below, above (a leak looks like success), inconclusive or unreported."""
    result: dict[str, Any] = reported.model_dump()
    if reported.value is None or reported.tolerance is None or reported.metric is None:
        return result | {"verdict": "unreported"}
    if reported.metric not in table:
        return result | {"verdict": "incomparable", "reason": f"no metric {reported.metric}"}
    found = table[reported.metric]
    delta = found["mean"] - reported.value
    if not np.isfinite(delta):
        return result | {"verdict": "incomparable", "reason": f"{reported.metric} is {found['mean']}"}
    error = 2 * found["std"] / np.sqrt(n) if found["std"] is not None else np.inf
    if error > reported.tolerance:
        verdict = "inconclusive"
    else:
        verdict = "below" if delta < -reported.tolerance else "above" if delta > reported.tolerance else "pass"
    return result | {"delta": delta, "verdict": verdict}


def judge(
    manifest: Table,
    accepted: Mapping[str, Any] | None,
    gate: Gate,
    evaluation: Evaluation,
    *summaries: Mapping[str, Any],
) -> dict[str, Any]:
    """The verdict: one row for each run and gated metric, and whether the gate passes."""
    gaps: Mapping[str, float | None] = dict.fromkeys(gate.metrics)
    judged = [s for s in summaries if gate.concerns(s["run"])]
    if accepted is not None:
        accepted = {**accepted, "runs": {run: e for run, e in accepted["runs"].items() if gate.concerns(run)}}
    reason = _incomparable(accepted, gate, judged)
    if judged and reason is None and accepted is not None and accepted["runs"]:
        gaps = accepted_margins(manifest, accepted, gate, evaluation, min(s["n"] for s in judged))
    rows = [
        _row(summary, metric, accepted, gaps[metric], gate, reason)
        for summary in summaries
        for metric in _concerning(summary, gate, accepted)
    ]
    missing = sorted(set((accepted or {}).get("runs", {})) - {s["run"] for s in summaries})
    failed = [r for r in rows if r["verdict"] not in PASSING]
    papers = [s for s in summaries if s["reported"]["gates"] and s["reported"]["verdict"] not in PASSING]
    return {
        "passes": not failed and not papers,
        "against": gate.against,
        "level": gate.level,
        "accepted_reason": (accepted or {}).get("reason"),
        "rows": rows,
        "failed": ([reason] if reason else [_sentence(r) for r in failed]) + [_paper(s) for s in papers],
        "accepted_but_not_run": missing,
        "summaries": list(summaries),
    }


def _concerning(summary: Mapping[str, Any], gate: Gate, accepted: Mapping[str, Any] | None) -> list[str]:
    """The gated metrics of the protocols that judge the run, or did when it was accepted; all, where none does."""
    before = (accepted or {}).get("runs", {}).get(summary["run"], {}).get("mean", {})
    protocols = {key.split(".")[0] for key in (*summary["metrics"], *before)}
    return [metric for metric in gate.metrics if metric.split(".")[0] in protocols] or gate.metrics


def _incomparable(accepted: Mapping[str, Any] | None, gate: Gate, summaries: Sequence[Mapping[str, Any]]) -> str | None:
    """Why nothing can be compared, or None."""
    if gate.against == "nothing":
        return None
    if accepted is None:
        return "no accepted baseline: python -m ltpipe.accept writes one"
    if not summaries:
        return None
    data = sorted({d for s in summaries for d in s["data"]})
    if data != [accepted["data"]]:
        return f"measured on data {' '.join(data)}, accepted on {accepted['data']}"
    if any(len(run["seeds"]) < 2 for run in accepted["runs"].values()):
        return "the accepted baseline has one seed: its noise is unknown, accept at least two"
    return None


def accepted_margins(
    manifest: Table, accepted: Mapping[str, Any], gate: Gate, evaluation: Evaluation, seeds: int
) -> dict[str, float]:
    """Margin of each gated metric in percentage points, by simulation from the accepted correctness bits."""
    sums: dict[str, dict[str, np.ndarray]] = {run: {} for run in accepted["runs"]}
    sizes, smallest = {}, {}
    numbers = {
        source: i for i, source in enumerate(sorted(manifest.loc[manifest["role"] == "test", "source"].unique()))
    }
    for metric in gate.metrics:
        protocol, _, part = metric.split(".")
        rows = manifest[manifest["split"] == evaluation.protocols[protocol].test].sort_values("id")
        member = np.ones(len(rows), bool) if part == "all" else (rows["group"] == part).to_numpy()
        clusters = rows["source"].map(numbers).to_numpy()
        sizes[metric] = np.bincount(clusters[member], minlength=len(numbers)).astype(float)
        smallest[metric] = 100 / member.sum()
        for run, entry in accepted["runs"].items():
            split = evaluation.protocols[protocol].test
            bits = [accepted_files.unpack(s["correct"][split], len(rows)) for s in entry["seeds"].values()]
            sums[run][metric] = cluster_sums(np.stack(bits), member, clusters, len(numbers))
    freedom = sum(len(entry["seeds"]) - 1 for entry in accepted["runs"].values())
    return margins(simulate(sums, sizes, seeds), freedom, smallest, gate.level)


def _row(
    summary: Mapping[str, Any],
    metric: str,
    accepted: Mapping[str, Any] | None,
    margin: float | None,
    gate: Gate,
    reason: str | None,
) -> dict[str, Any]:
    found = summary["metrics"].get(metric)
    row = {"run": summary["run"], "metric": metric, "n": summary["n"], "margin": margin}
    row |= {"mean": found["mean"] if found else None, "std": found["std"] if found else None}
    if not gate.concerns(summary["run"]):
        return row | {"verdict": "not judged"}
    before = (accepted or {}).get("runs", {}).get(summary["run"], {}).get("mean", {})
    reason = reason or _reason(found, metric, before)
    if reason is not None or found is None or margin is None:
        return row | {"verdict": "incomparable", "reason": reason}
    delta = found["mean"] - before[metric]
    verdict = "regressed" if delta < -margin else "improved" if delta > margin else "pass"
    return row | {"accepted": before[metric], "delta": delta, "verdict": verdict}


def _reason(found: Mapping[str, Any] | None, metric: str, accepted: Mapping[str, float]) -> str | None:
    """Why one number cannot be compared, or None."""
    if found is None:
        return f"{metric} was not measured"
    if not np.isfinite(found["mean"]):
        return f"{metric} is {found['mean']}"
    if not accepted:
        return "the run was never accepted: python -m ltpipe.accept"
    return None if metric in accepted else f"{metric} was never accepted: python -m ltpipe.accept"


def _sentence(row: Mapping[str, Any]) -> str:
    if row["verdict"] == "incomparable":
        return f"{row['run']} {row['metric']}: incomparable, {row['reason']}"
    return (
        f"{row['run']} {row['metric']}: {row['mean']:.2f} (n {row['n']}) is {-row['delta']:.2f} below the accepted "
        f"{row['accepted']:.2f}, margin {row['margin']:.2f}"
    )


def _paper(summary: Mapping[str, Any]) -> str:
    r = summary["reported"]
    why = r.get("reason") or f"measured {summary['metrics'][r['metric']]['mean']:.2f}, tolerance {r['tolerance']}"
    return f"{summary['run']} {r['metric']}: {r['verdict']} the reported {r['value']} ({why})"


def gate(verdict: Mapping[str, Any], report: Path) -> None:
    """Raise GateFailed with every number that failed; the report is already written."""
    if not verdict["passes"]:
        lines = "\n".join(f"  {line}" for line in verdict["failed"])
        raise GateFailed(f"the gate fails, {len(verdict['failed'])} of its comparisons:\n{lines}\nreport: {report}")
