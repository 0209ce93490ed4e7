"""Stage `report`: markdown with reported, accepted and measured numbers, and plots as PNG; written before the gate."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltpipe.evaluation import plots
from ltpipe.evaluation.claims import Claims, check_claims
from ltpipe.storage.table import Table

NONE = "-"


def report(
    verdict: Mapping[str, Any], validation: Mapping[str, Any], claims: Claims, *cells: Mapping[str, Any] | Table
) -> dict[str, bytes]:
    """Files of the report by name. cells: details (dicts) and training logs (tables) of every run and seed."""
    details = [cell for cell in cells if isinstance(cell, Mapping)]
    logs = [cell for cell in cells if not isinstance(cell, Mapping)]
    names = [detail["cell"] for detail in details]
    figures = plots.draw(verdict["summaries"], details, dict(zip(names, logs, strict=True)))
    text = markdown(
        names[0].split(".")[0], verdict, validation, check_claims(claims, verdict["summaries"]), list(figures)
    )
    return {"report.md": text.encode(), **figures}


def markdown(
    benchmark: str,
    verdict: Mapping[str, Any],
    validation: Mapping[str, Any],
    claims: Sequence[Mapping[str, Any]],
    figures: Sequence[str],
) -> str:
    """The report's text."""
    summaries = verdict["summaries"]
    data = sorted({d for s in summaries for d in s["data"]})
    checks = validation["expectations"]
    state = "passes" if verdict["passes"] else "FAILS"
    if verdict["against"] == "nothing":
        state = "judges nothing (gate.against: nothing)"
    lines = [
        f"# {benchmark}: the gate {state}",
        "",
        f"Data `{' '.join(data)}`: {validation['rows']} manifest rows, "
        f"{sum(e['success'] for e in checks)} of {len(checks)} expectations hold.",
        *([""] + [f"* {line}" for line in verdict["failed"]] if verdict["failed"] else []),
        "",
        "## Gate",
        "",
        "Rates in percent; n seeds; delta and margin in percentage points. "
        f"Unchanged code passes with probability {verdict['level']:g}.",
        "",
        *_table(
            ["run", "metric", "reported", "accepted", "measured", "std", "n", "delta", "margin", "verdict"],
            [_gate_row(row, summaries) for row in verdict["rows"]],
        ),
        "",
        *_claims(claims),
        "## Every metric",
        "",
        "Mean ± standard deviation over the seeds.",
        "",
        *_metrics(summaries),
        "",
        "## Runs",
        "",
        *_table(
            ["run", "label", "seeds", "code", "reported", "verdict on it", "why"], [_run_row(s) for s in summaries]
        ),
        "",
        *[f"![{figure}]({figure})" for figure in figures],
        "",
    ]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]]


def _number(value: float | None, sign: bool = False) -> str:
    return NONE if value is None else f"{value:+.2f}" if sign else f"{value:.2f}"


def _gate_row(row: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    paper = next(s["reported"] for s in summaries if s["run"] == row["run"])
    reported = _number(paper["value"]) if paper["metric"] == row["metric"] else NONE
    verdict = row["verdict"] + (f": {row['reason']}" if row.get("reason") else "")
    return [
        row["run"],
        row["metric"],
        reported,
        _number(row.get("accepted")),
        _number(row["mean"]),
        _number(row["std"]),
        str(row["n"]),
        _number(row.get("delta"), sign=True),
        _number(row["margin"]),
        verdict,
    ]


def _claims(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """What papers claim of the order of methods; nothing where nothing is claimed."""
    if not claims:
        return []
    rows = [
        [
            f"{c['better']} > {c['than']}",
            c["metric"],
            _number(c["difference"], sign=True),
            _number(c["error"]),
            str(c["n"]),
            c["verdict"],
            c["source"],
        ]
        for c in claims
    ]
    head = ["claim", "metric", "difference", "standard error", "n", "verdict", "source"]
    lead = "Differences in percentage points, paired by seed; within two standard errors they are inconclusive."
    return ["## What the papers claim of the order", "", lead, "", *_table(head, rows), ""]


def _metrics(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = list(dict.fromkeys(key for s in summaries for key in s["metrics"] if not key.endswith(".n")))
    rows = [[key, *(_cell(s["metrics"].get(key)) for s in summaries)] for key in keys]
    return _table(["metric", *(f"{s['run']} (n {s['n']})" for s in summaries)], rows)


def _cell(value: Mapping[str, Any] | None) -> str:
    return NONE if value is None else f"{_number(value['mean'])} ± {_number(value['std'])}"


def _run_row(summary: Mapping[str, Any]) -> list[str]:
    paper = summary["reported"]
    value = NONE if paper["value"] is None else f"{paper['value']:g} ({paper['metric']}, {paper['source']})"
    seeds = " ".join(map(str, summary["seeds"]))
    return [
        summary["run"],
        paper["label"] or NONE,
        seeds,
        " ".join(summary["code"]),
        value,
        paper["verdict"],
        paper["why"] or NONE,
    ]
