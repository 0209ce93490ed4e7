"""Stage `judge`: compare means over seeds with the accepted baseline and with the reported numbers.

If a comparison cannot be made, its verdict is `incomparable`, with a reason, and the gate fails.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.evaluation.baseline import unpack_bits
from ltpipe.evaluation.margin import LEVEL, cluster_sums, margins, simulate
from ltpipe.evaluation.measure import Evaluation, flatten
from ltpipe.evaluation.metrics import MetricPath
from ltpipe.storage.table import Table

# The verdicts that do not fail the gate; a new verdict fails until it is added here.
PASSING = ("pass", "improved", "unreported", "not judged")


class Gate(Spec):
    """Which numbers the gate compares with the accepted baseline, and how strictly."""

    metrics: list[MetricPath] = Field(min_length=1, description="metric paths to compare, e.g. glt.accuracy.few")
    against: Literal["accepted", "nothing"] = Field(
        "accepted", description="`nothing` compares nothing with the baseline, and the report says so"
    )
    runs: list[str] | None = Field(None, description="runs that gate; default: all")
    level: float = Field(LEVEL, gt=0, lt=1, description="probability with which unchanged code passes")

    def concerns(self, run: str) -> bool:
        """Tell whether the run's numbers are compared with the baseline."""
        return self.against == "accepted" and (self.runs is None or run in self.runs)


class Reported(Spec):
    """A number from a paper, or the reason why there is none.

    Noise does not widen the tolerance: if two standard errors of the mean exceed it, the verdict is `inconclusive`,
    and a number that gates fails the gate unless its verdict is `pass`.
    """

    label: str | None = Field(None, description="the paper's name of the run; the run's key stays snake_case")
    value: float | None = Field(None, ge=0, le=100, description="the reported number, in percent")
    metric: MetricPath | None = Field(None, description="metric path of the number, e.g. clt.accuracy.all")
    tolerance: float | None = Field(
        None, gt=0, description="largest distance from the number that passes, above or below, in percentage points"
    )
    source: str | None = Field(None, description="paper and table of the number")
    gates: bool = Field(False, description="the gate fails unless the measured mean is within the tolerance")
    why: str | None = Field(None, description="why there is no value, or why it does not gate")

    @model_validator(mode="after")
    def _check_complete(self) -> "Reported":
        if self.value is not None and not (self.metric and self.tolerance and self.source):
            raise ValueError("a reported value needs metric, tolerance and source")
        if self.value is not None and not self.gates and not self.why:
            raise ValueError("a number that does not gate needs a reason: why")
        if self.gates and self.value is None:
            raise ValueError("gates: true needs a value")
        return self


class SharedReported(Spec):
    """Defaults for the `reported` blocks of all runs."""

    metric: MetricPath | None = Field(None, description="metric path of the reported values")
    tolerance: float | None = Field(None, gt=0, description="tolerance of the reported values, in percentage points")
    why: str | None = Field(None, description="why there is no value, for runs that have none")

    def fill(self, reported: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run's `reported` block with these defaults filled in."""
        shared = self.model_dump(exclude_none=True)
        # `why` explains a missing value; the other two describe a value
        taken = ("why",) if reported.get("value") is None else ("metric", "tolerance")
        return {key: value for key, value in shared.items() if key in taken} | dict(reported)


def summarise(reported: Reported, *cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return mean and std of every metric over the seeds of one run, and the verdict on its reported number.

    cells: the metrics of each seed.
    """
    cell_metrics = [flatten(cell["protocols"]) for cell in cells]
    _require_same_metrics(cells, cell_metrics)
    table = {
        key: {
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "values": values,
        }
        for key in cell_metrics[0]
        for values in [[metrics[key] for metrics in cell_metrics]]
    }
    return {
        "run": cells[0]["cell"].rsplit(".", 2)[1],
        "n": len(cells),
        "seeds": [cell["seed"] for cell in cells],
        "data": sorted({cell["data"] for cell in cells}),
        "code": sorted({cell["code"] for cell in cells}),
        "metrics": table,
        "reported": compare_with_reported(reported, table, len(cells)),
    }


def _require_same_metrics(cells: Sequence[Mapping[str, Any]], cell_metrics: Sequence[Mapping[str, float]]) -> None:
    """Raise Refused if seeds have different metrics: some were measured by other code."""
    every = {key for metrics in cell_metrics for key in metrics}
    for cell, metrics in zip(cells, cell_metrics, strict=True):
        if missing := sorted(every - set(metrics)):
            benchmark = cell["cell"].partition(".")[0]
            raise Refused(
                f"{cell['cell']} has no {', '.join(missing[:5])}, which other seeds have: measure all of them again, "
                f"kedro run --pipeline={benchmark} --tags=evaluate"
            )


def compare_with_reported(reported: Reported, table: Mapping[str, Mapping[str, Any]], n: int) -> dict[str, Any]:
    """Return the block with a verdict: pass, below, above, inconclusive, incomparable or unreported.

    table: metric path -> mean and std over n seeds. A mean above the tolerance does not pass either: a leak of test
    images into training looks like success.
    """
    result: dict[str, Any] = reported.model_dump()
    if reported.value is None or reported.tolerance is None or reported.metric is None:
        return result | {"verdict": "unreported"}
    if reported.metric not in table:
        return result | {"verdict": "incomparable", "reason": f"no metric {reported.metric}"}
    measured = table[reported.metric]
    delta = measured["mean"] - reported.value
    if not np.isfinite(delta):
        return result | {"verdict": "incomparable", "reason": f"{reported.metric} is {measured['mean']}"}
    # one seed has no standard error, so it never confirms a number
    error = 2 * measured["std"] / np.sqrt(n) if measured["std"] is not None else np.inf
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
    """Return the verdict: a row for each run and gated metric, and whether the gate passes.

    accepted: content of conf/accepted/<benchmark>.json, or None. summaries: see `summarise`, one for each run.
    """
    margin_of: Mapping[str, float | None] = dict.fromkeys(gate.metrics)
    judged = [s for s in summaries if gate.concerns(s["run"])]
    if accepted is not None:  # a run that does not gate must not widen the margins of the others
        accepted = {**accepted, "runs": {run: e for run, e in accepted["runs"].items() if gate.concerns(run)}}
    obstacle = _find_obstacle(accepted, gate, judged)
    if judged and obstacle is None and accepted is not None and accepted["runs"]:
        # the run with the fewest seeds has the noisiest mean; its margin is used for all runs
        margin_of = accepted_margins(manifest, accepted, gate, evaluation, min(s["n"] for s in judged))
    rows = [
        _compare_with_accepted(summary, metric, accepted, margin_of[metric], gate, obstacle)
        for summary in summaries
        for metric in _gated_metrics(summary, gate, accepted)
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
        # an obstacle makes every row incomparable for the same reason: say it once
        "failed": ([obstacle] if obstacle else [_describe_row(r) for r in failed])
        + [_describe_reported(s) for s in papers],
        "accepted_but_not_run": missing,
        "summaries": list(summaries),
    }


def _gated_metrics(summary: Mapping[str, Any], gate: Gate, accepted: Mapping[str, Any] | None) -> list[str]:
    """Return the gated metrics of the protocols that evaluate the run, now or when it was accepted.

    If there are none, return all gated metrics: the run is then incomparable, instead of passing without a comparison.
    """
    before = (accepted or {}).get("runs", {}).get(summary["run"], {}).get("mean", {})
    protocols = {key.split(".")[0] for key in (*summary["metrics"], *before)}
    return [metric for metric in gate.metrics if metric.split(".")[0] in protocols] or gate.metrics


def _find_obstacle(
    accepted: Mapping[str, Any] | None, gate: Gate, summaries: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return why no number at all can be compared with the baseline, or None."""
    if gate.against == "nothing":
        return None
    if accepted is None:
        return (
            "no accepted baseline: look at the report, then ltpipe accept BENCHMARK --reason, and judge again "
            "(--tags=judge,gate)"
        )
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
    """Return the margin of each gated metric in percentage points, simulated from the accepted correctness bits.

    seeds: how many seeds the candidate has.
    """
    sums: dict[str, dict[str, np.ndarray]] = {run: {} for run in accepted["runs"]}
    sizes, smallest = {}, {}
    # All test splits number the sources in the same way, so that a drawn source counts in each of them.
    numbers = {
        source: i for i, source in enumerate(sorted(manifest.loc[manifest["role"] == "test", "source"].unique()))
    }
    for metric in gate.metrics:
        protocol, _, part = metric.split(".")
        split = evaluation.protocols[protocol].test
        rows = manifest[manifest["split"] == split].sort_values("id")  # the order of the accepted bits
        member = np.ones(len(rows), bool) if part == "all" else (rows["group"] == part).to_numpy()
        clusters = rows["source"].map(numbers).to_numpy()
        sizes[metric] = np.bincount(clusters[member], minlength=len(numbers)).astype(float)
        smallest[metric] = 100 / member.sum()
        for run, entry in accepted["runs"].items():
            bits = [unpack_bits(s["correct"][split], len(rows)) for s in entry["seeds"].values()]
            sums[run][metric] = cluster_sums(np.stack(bits), member, clusters, len(numbers))
    freedom = sum(len(entry["seeds"]) - 1 for entry in accepted["runs"].values())
    return margins(simulate(sums, sizes, seeds), freedom, smallest, gate.level)


def _compare_with_accepted(
    summary: Mapping[str, Any],
    metric: str,
    accepted: Mapping[str, Any] | None,
    margin: float | None,
    gate: Gate,
    obstacle: str | None,
) -> dict[str, Any]:
    """Return the row of one run and metric, with its verdict. obstacle: why nothing can be compared, or None."""
    measured = summary["metrics"].get(metric)
    row = {"run": summary["run"], "metric": metric, "n": summary["n"], "margin": margin}
    row |= {"mean": measured["mean"] if measured else None, "std": measured["std"] if measured else None}
    if not gate.concerns(summary["run"]):
        return row | {"verdict": "not judged"}
    before = (accepted or {}).get("runs", {}).get(summary["run"], {}).get("mean", {})
    reason = obstacle or _why_incomparable(measured, metric, before)
    if reason is not None or measured is None or margin is None:
        return row | {"verdict": "incomparable", "reason": reason}
    delta = measured["mean"] - before[metric]
    verdict = "regressed" if delta < -margin else "improved" if delta > margin else "pass"
    return row | {"accepted": before[metric], "delta": delta, "verdict": verdict}


def _why_incomparable(measured: Mapping[str, Any] | None, metric: str, accepted: Mapping[str, float]) -> str | None:
    """Return why this number cannot be compared, or None. accepted: metric path -> mean, empty for a new run."""
    if measured is None:
        return f"{metric} was not measured"
    if not np.isfinite(measured["mean"]):
        return f"{metric} is {measured['mean']}"
    if not accepted:
        return "the run was never accepted: run ltpipe accept"
    return None if metric in accepted else f"{metric} was never accepted: run ltpipe accept"


def _describe_row(row: Mapping[str, Any]) -> str:
    """Return a failed comparison with the baseline as one line."""
    if row["verdict"] == "incomparable":
        return f"{row['run']} {row['metric']}: incomparable, {row['reason']}"
    return (
        f"{row['run']} {row['metric']}: {row['mean']:.2f} (n {row['n']}) is {-row['delta']:.2f} below the accepted "
        f"{row['accepted']:.2f}, margin {row['margin']:.2f}"
    )


def _describe_reported(summary: Mapping[str, Any]) -> str:
    """Return a failed comparison with a paper's number as one line."""
    r = summary["reported"]
    why = r.get("reason") or f"measured {summary['metrics'][r['metric']]['mean']:.2f}, tolerance {r['tolerance']}"
    return f"{summary['run']} {r['metric']}: {r['verdict']} the reported {r['value']} ({why})"
