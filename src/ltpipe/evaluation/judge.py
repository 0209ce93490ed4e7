"""Node `judge` of stage `report`: compare means over seeds with the accepted baseline and the reported numbers.

Verdicts: `pass`, `regressed`; `inconclusive` if the margin is too wide to see anything; `incomparable`, with a reason,
if no comparison can be made. Only `pass` passes; `not judged` says that the gate's settings leave a number out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.evaluation.baseline import Accepted, check_bits, read_accepted
from ltpipe.evaluation.cells import check_cells
from ltpipe.evaluation.comparison import Column, compare_all, find_power, share_risk
from ltpipe.evaluation.headline import choose_headline
from ltpipe.evaluation.margin import Falls
from ltpipe.evaluation.measure import Evaluation
from ltpipe.evaluation.metrics import MetricPath, parse_path
from ltpipe.evaluation.verdict import PASSING, Noise, decide, describe_failed, guessing_value, one_image, sign_of
from ltpipe.storage.manifest import fingerprint
from ltpipe.storage.table import Table

# Falls of the primary metric, in points, for which the report says how often they are caught.
SHOWN_FALLS = (0.5, 1.0, 2.0, 5.0)


class Gate(Spec):
    """Which numbers the gate compares with the accepted baseline, and how strictly."""

    primary: MetricPath = Field(description="metric path that matters most: it takes 90 % of the risk of a false alarm")
    metrics: list[MetricPath] = Field(default_factory=list, description="further metric paths to compare")
    against: Literal["accepted", "nothing"] = Field(
        "accepted", description="`nothing` compares nothing with the baseline, and the report says so"
    )
    runs: list[str] | None = Field(
        None, min_length=1, description="runs that gate; default: all; for none say against: nothing"
    )
    level: float = Field(0.95, gt=0, lt=1, description="probability with which unchanged code passes")
    ceiling: float = Field(
        10.0,
        gt=0,
        description="widest margin in percentage points with which a comparison counts; a wider one is inconclusive, "
        "and `accept` refuses the baseline",
    )

    @model_validator(mode="after")
    def _check_distinct(self) -> "Gate":
        if self.primary in self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ValueError("a metric is stated once: primary, or one of metrics")
        return self

    def all_metrics(self) -> list[str]:
        """Return the primary metric and the others."""
        return [self.primary, *self.metrics]

    def concerns(self, run: str) -> bool:
        """Tell whether the run's numbers are compared with the baseline."""
        return self.against == "accepted" and (self.runs is None or run in self.runs)


def judge(
    manifest: Table,
    accepted: Mapping[str, Any] | None,
    gate: Gate,
    evaluation: Evaluation,
    state: Mapping[str, Any],
    *summaries: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the verdict: a row for each run and gated metric, and whether the gate passes.

    accepted: content of conf/accepted/<benchmark>.json, or None. state: see `ltpipe.state`. summaries: see
    `ltpipe.evaluation.summary`, one for each run. Raises Refused if the cells are not of this state, or if the accepted
    file is not what `accept` wrote.
    """
    check_cells(state, (cell for summary in summaries for cell in summary["cells"]))
    _require_manifest(manifest, state)
    baseline = None if accepted is None else read_accepted(accepted, state["benchmark"])
    compared = compare_with_accepted(manifest, baseline, gate, evaluation, summaries)
    papers = [s for s in summaries if s["reported"]["gates"] and s["reported"]["verdict"] not in PASSING]
    failed = [*compared.pop("failed"), *(_describe_reported(s) for s in papers)]
    return {
        **compared,
        "state": {key: value for key, value in state.items() if key != "cells"},
        "baseline": gate.against if gate.against == "nothing" else "accepted" if baseline else "none",
        "passes": not failed,
        "failed": failed,
        "level": gate.level,
        "primary": gate.primary,
        "accepted_reason": baseline.reason if baseline else None,
        "retired": baseline.retired if baseline else {},
        "settings": _changed_settings(baseline, gate, summaries) if baseline else [],
        "notes": [*state["warnings"], *find_misleading(manifest, gate, evaluation)],
        "summaries": list(summaries),
    }


def _require_manifest(manifest: Table, state: Mapping[str, Any]) -> None:
    """Raise Refused unless the manifest is that of the data that the cells were measured on."""
    data = next(iter(state["cells"].values()))["data"]
    if fingerprint(manifest) != data.split("-")[0]:
        raise Refused(
            f"manifest.parquet of {state['benchmark']} is {fingerprint(manifest)}, the data of its cells are {data}: "
            f"draw it again, kedro run --pipeline={state['benchmark']} --tags=fetch,cluster,split, or dvc repro"
        )


def compare_with_accepted(
    manifest: Table,
    baseline: Accepted | None,
    gate: Gate,
    evaluation: Evaluation,
    summaries: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return rows, failed (a line for each reason to fail), together, and power: what the gate would see."""
    obstacle = _find_obstacle(baseline, gate, manifest, summaries)
    if obstacle is None and baseline is not None and gate.against == "accepted":
        check_bits(baseline, manifest, evaluation)
    rows = [
        _blank_row(summary, metric, gate, baseline, obstacle)
        for summary in summaries
        for metric in _gated_metrics(summary, gate, baseline)
    ]
    judged = [row for row in rows if row["verdict"] is None]
    result: dict[str, Any] = {"rows": rows, "together": None, "power": None, "failed": [obstacle] if obstacle else []}
    if judged and baseline is not None:
        result |= _judge_rows(judged, baseline, gate, manifest, evaluation, summaries)
    if not obstacle:  # an obstacle makes every row incomparable for the same reason: say it once
        result["failed"] = [*_missing_runs(baseline, gate, summaries), *describe_failed(rows, result["together"])]
    return result


def _find_obstacle(
    baseline: Accepted | None, gate: Gate, manifest: Table, summaries: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return why no number at all can be compared with the baseline, or None."""
    if gate.against == "nothing":
        return None
    if baseline is None:
        return "there is no accepted baseline yet, so nothing was compared"
    data = sorted({d for s in summaries for d in s["data"]})
    if data != [baseline.data]:
        return (
            f"measured on data {' '.join(data)}, accepted on {baseline.data}: other pictures or another split, whose "
            f"numbers cannot be compared. If that is meant, they become the new baseline by: ltpipe accept "
            f'{baseline.benchmark} --reason "..."'
        )
    return None


def _missing_runs(baseline: Accepted | None, gate: Gate, summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each run that was accepted, is not run now, and was not retired."""
    if baseline is None or gate.against == "nothing":
        return []
    gone = sorted(set(baseline.runs) - {s["run"] for s in summaries})
    name = baseline.benchmark
    return [
        f"{run} was accepted and is not run any more: run it, or say why not, "
        f'ltpipe accept {name} --retire {run} --reason "..."'
        for run in gone
    ]


def _gated_metrics(summary: Mapping[str, Any], gate: Gate, baseline: Accepted | None) -> list[str]:
    """Return the gated metrics of the protocols that evaluate the run, now or when it was accepted.

    If there are none, return all gated metrics: the run is then incomparable, instead of passing without a comparison.
    """
    before = _accepted_mean(baseline, summary["run"])
    protocols = {key.split(".")[0] for key in (*summary["metrics"], *before)}
    return [metric for metric in gate.all_metrics() if metric.split(".")[0] in protocols] or gate.all_metrics()


def _accepted_mean(baseline: Accepted | None, run: str) -> Mapping[str, float]:
    return baseline.runs[run].mean if baseline is not None and run in baseline.runs else {}


def _blank_row(
    summary: Mapping[str, Any], metric: str, gate: Gate, baseline: Accepted | None, obstacle: str | None
) -> dict[str, Any]:
    """Return the row of one run and metric; its verdict is None if it can be compared."""
    measured = summary["metrics"].get(metric)
    row: dict[str, Any] = {"run": summary["run"], "metric": metric, "n": summary["n"]}
    row |= {key: measured[key] if measured else None for key in ("mean", "std")}
    row |= dict.fromkeys(("accepted", "accepted_n", "delta", "margin", "sees"))
    if not gate.concerns(summary["run"]):
        return row | {"verdict": "not judged"}
    reason = obstacle or _why_incomparable(measured, metric, summary["run"], baseline)
    return row | ({"verdict": "incomparable", "reason": reason} if reason else {"verdict": None})


def _why_incomparable(
    measured: Mapping[str, Any] | None, metric: str, run: str, baseline: Accepted | None
) -> str | None:
    """Return why this number cannot be compared, or None."""
    before = _accepted_mean(baseline, run)
    if measured is None:
        return f"{metric} was not measured"
    if not np.isfinite(measured["mean"]):
        return f"{metric} is {measured['mean']}"
    if not before:
        return "the run was never accepted: run ltpipe accept"
    if metric not in before:
        return f"{metric} was never accepted: run ltpipe accept"
    if baseline is not None and baseline.runs[run].n < 2:
        return "one accepted seed, whose noise is unknown: accept at least two"
    return None


def _judge_rows(
    rows: Sequence[dict[str, Any]],
    baseline: Accepted,
    gate: Gate,
    manifest: Table,
    evaluation: Evaluation,
    summaries: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Fill the rows in, and return what is said of all of them together, and what the gate would see."""
    columns = [
        Column(row["run"], row["metric"], sign_of(row["metric"]), one_image(row["metric"], manifest, evaluation))
        for row in rows
    ]
    accepted, candidate = _values(columns, baseline, summaries)
    single, together = compare_all(accepted, candidate, columns, gate.primary, gate.level)
    seeds = min(int(n) for n in (~np.isnan(candidate)).sum(axis=0))
    known = accepted[~np.isnan(accepted).all(axis=1)]
    power = find_power(known, seeds, columns, gate.primary, gate.level, SHOWN_FALLS)
    risks, _ = share_risk(columns, gate.primary, 1 - gate.level)
    for k, row in enumerate(rows):
        fall, margin = float(single.fall[k]), float(single.margin[k])
        row |= {
            "accepted": row["mean"] + columns[k].sign * fall,
            "accepted_n": _seeds_used(accepted[:, k], candidate[:, k]),
        }
        row |= {"delta": -columns[k].sign * fall, "margin": margin, "sees": float(power.smallest[k])}
        noise = Noise(float(single.deviation[k]), float(risks[k]))
        row |= decide(row, fall, gate.ceiling, noise, guessing_value(row["metric"], manifest))
    return {
        "together": _together(together),
        "power": {"seeds": seeds, "false_alarms": power.false_alarms, "caught": [*power.caught.items()]},
    }


def _seeds_used(accepted: np.ndarray, candidate: np.ndarray) -> int:
    """Return how many accepted seeds a candidate is compared with: its own if all were accepted, else all."""
    shared, n = ~np.isnan(accepted) & ~np.isnan(candidate), (~np.isnan(candidate)).sum()
    return int(n if 1 < n == shared.sum() else (~np.isnan(accepted)).sum())


def _values(
    columns: Sequence[Column], baseline: Accepted, summaries: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return accepted and measured values, S x K each, aligned by the seeds' numbers; nan where there is none."""
    measured = {
        (s["run"], metric, seed): value
        for s in summaries
        for metric, spread in s["metrics"].items()
        for seed, value in zip(s["seeds"], spread["values"], strict=True)
    }
    accepted = {
        (run, metric, seed.seed): value
        for run, entry in baseline.runs.items()
        for seed in entry.seeds.values()
        for metric, value in seed.metrics.items()
    }
    seeds = sorted({seed for c in columns for run, metric, seed in (*measured, *accepted) if (run, metric) == c[:2]})
    tables = ([[of.get((*c[:2], seed), np.nan) for c in columns] for seed in seeds] for of in (accepted, measured))
    before, after = (np.array(table, float) for table in tables)
    return before, after


def _together(falls: Falls | None) -> dict[str, Any] | None:
    """Return the row of all comparisons together, in standard deviations of the accepted seeds."""
    if falls is None or not np.isfinite([falls.fall[0], falls.margin[0]]).all():  # no seed that all comparisons have
        return None
    fall, margin = float(falls.fall[0]), float(falls.margin[0])
    return {"delta": -fall, "margin": margin, "verdict": "regressed" if fall > margin else "pass"}


def _changed_settings(baseline: Accepted, gate: Gate, summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each way in which the gate differs from the one that the baseline was accepted with."""
    now = gate.model_dump(mode="json")
    lines = [
        f"gate.{key}: {now[key]}, when accepted {baseline.gate.get(key)}"
        for key in now
        if now[key] != baseline.gate.get(key)
    ]
    for summary in summaries:
        entry = baseline.runs.get(summary["run"])
        if entry is not None and summary["n"] != entry.n:
            lines.append(f"{summary['run']}: {summary['n']} seeds, when accepted {entry.n}")
        if entry is not None and entry.recipe not in (None, summary["cells"][0]["recipe"]):
            lines.append(f"{summary['run']}: another recipe (method, schedule or model) than when accepted")
    return lines


def find_misleading(manifest: Table, gate: Gate, evaluation: Evaluation) -> list[str]:
    """Return a line for each protocol that gates on accuracy though its test split is not balanced."""
    gated = [parse_path(path) for path in gate.all_metrics()]
    lines = []
    for protocol in dict.fromkeys(place.protocol for place in gated if place.metric == "accuracy"):
        labels = manifest.loc[manifest["split"] == evaluation.protocols[protocol].test, "label"]
        headline = choose_headline(protocol, labels.value_counts().to_list() or [0])
        if headline.metric != "accuracy" and headline.path not in gate.all_metrics():
            lines.append(f"{protocol}.accuracy gates, but {headline.reason}: gate on {headline.path}")
    return lines


def _describe_reported(summary: Mapping[str, Any]) -> str:
    """Return a failed comparison with a paper's number as one line."""
    r = summary["reported"]
    why = r.get("reason") or f"measured {summary['metrics'][r['metric']]['mean']:.2f}, tolerance {r['tolerance']}"
    return f"{summary['run']} {r['metric']}: {r['verdict']} the reported {r['value']} ({why})"
