"""Write the report: markdown with reported, accepted and measured numbers, and figures as PNG.

It is written before the gate runs, so that a failed run has a report too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ltpipe.evaluation import plots
from ltpipe.evaluation.claims import Claims, check_claims
from ltpipe.storage.table import Table

NONE = "-"  # a number that does not exist


def report(
    verdict: Mapping[str, Any], validation: Mapping[str, Any], claims: Claims, *cells: Mapping[str, Any] | Table
) -> dict[str, bytes]:
    """Return file name -> content. cells: details (dicts) and training logs (tables) of every run and seed.

    Details and logs come in the same order of cells; Kedro passes them as one list.
    """
    details = [cell for cell in cells if isinstance(cell, Mapping)]
    logs = [cell for cell in cells if not isinstance(cell, Mapping)]
    names = [detail["cell"] for detail in details]
    figures = plots.render(verdict["summaries"], details, dict(zip(names, logs, strict=True)))
    text = render_markdown(
        names[0].split(".")[0], verdict, validation, check_claims(claims, verdict["summaries"]), list(figures)
    )
    return {"report.md": text.encode(), **figures}


def render_markdown(
    benchmark: str,
    verdict: Mapping[str, Any],
    validation: Mapping[str, Any],
    claims: Sequence[Mapping[str, Any]],
    figures: Sequence[str],
) -> str:
    """Return the report's text. figures: file names of the figures, which lie beside it."""
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
        *_claims_section(claims),
        "## Every metric",
        "",
        "Mean ± standard deviation over the seeds.",
        "",
        *_metrics_table(summaries),
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
    """Return the lines of a markdown table."""
    return [f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows]]


def _number(value: float | None, sign: bool = False) -> str:
    """Return a number with two digits after the point. sign: show a plus too."""
    return NONE if value is None else f"{value:+.2f}" if sign else f"{value:.2f}"


def _gate_row(row: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    # a run reports one metric only: its number is shown in the row of that metric
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


def _claims_section(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the section on claims about the order of methods; empty if there are none."""
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


def _metrics_table(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table with a row for each metric and a column for each run; the numbers of images are left out."""
    keys = list(dict.fromkeys(key for s in summaries for key in s["metrics"] if not key.endswith(".n")))
    rows = [[key, *(_mean_and_std(s["metrics"].get(key)) for s in summaries)] for key in keys]
    return _table(["metric", *(f"{s['run']} (n {s['n']})" for s in summaries)], rows)


def _mean_and_std(value: Mapping[str, Any] | None) -> str:
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
