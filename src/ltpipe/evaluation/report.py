"""Write the report: markdown with reported, accepted and measured numbers, and figures as PNG.

It is written before the gate runs, so that a failed run has a report too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ltpipe.config.spec import Refused
from ltpipe.evaluation import plots
from ltpipe.evaluation.claims import Claims, check_claims
from ltpipe.evaluation.headline import Headline, headlines, rank
from ltpipe.recipe.cell import require_cell
from ltpipe.storage.table import Table

NONE = "-"  # a number that does not exist
SHOWN = ("cell", "recipe", "code", "data")  # what details and training logs say of their cell


def report(
    verdict: Mapping[str, Any], validation: Mapping[str, Any], claims: Claims, *cells: Mapping[str, Any] | Table
) -> dict[str, bytes]:
    """Return file name -> content. cells: details (dicts) and training logs (tables) of every run and seed.

    Both come in the order of the cells that were judged; Kedro passes them as one list. Raises Refused if one of them
    is of another cell, recipe, code or data than the metrics that were judged.
    """
    summaries = verdict["summaries"]
    _require_validation(validation, summaries)
    details = [cell for cell in cells if isinstance(cell, Mapping)]
    logs = [cell for cell in cells if not isinstance(cell, Mapping)]
    judged = [{key: cell[key] for key in SHOWN} for summary in summaries for cell in summary["cells"]]
    for asked, detail, log in zip(judged, details, logs, strict=True):
        require_cell("the details", detail, asked)
        require_cell("the training log", log.iloc[0].to_dict(), asked)
    names = [cell["cell"] for cell in judged]
    figures = plots.render(summaries, details, dict(zip(names, logs, strict=True)))
    claimed = check_claims(claims, summaries)
    text = render_markdown(verdict, validation, claimed, list(figures), headlines(details))
    return {"report.md": text.encode(), **figures}


def _require_validation(validation: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> None:
    """Raise Refused if the validation is of another manifest than the one that the cells were measured on."""
    measured = sorted({data.split("-")[0] for s in summaries for data in s["data"]})
    validated = validation.get("manifest")
    if measured != [validated]:
        raise Refused(
            f"the validation is of manifest {validated}, the cells are of {', '.join(measured)}: draw it again "
            "(--tags=fetch,cluster,split), or dvc repro"
        )


def render_markdown(
    verdict: Mapping[str, Any],
    validation: Mapping[str, Any],
    claims: Sequence[Mapping[str, Any]],
    figures: Sequence[str],
    shown: Sequence[Headline] = (),
) -> str:
    """Return the report's text. figures: file names of the figures, which lie beside it. shown: of each protocol."""
    summaries, state = verdict["summaries"], verdict["state"]
    checks = validation["expectations"]
    data = " ".join(sorted({d for s in summaries for d in s["data"]}))
    lines = [
        f"# {state['benchmark']}: the gate {_outcome(verdict)}",
        "",
        f"State `{state['digest']}`: parameters `{state['parameters']}`, data `{data}`, accepted baseline "
        f"`{state['accepted']}`; the code of each run is in the table of runs.",
        f"{validation['rows']} manifest rows, {sum(e['success'] for e in checks)} of {len(checks)} expectations hold.",
        *([""] + [f"* {line}" for line in verdict["failed"]] if verdict["failed"] else []),
        *_settings_section(verdict),
        "",
        *_headline_section(summaries, shown),
        "## Gate",
        "",
        "Rates in percent; n seeds; delta and margin in percentage points. "
        f"Unchanged code passes with probability {verdict['level']:g}. A fall as large as `sees` is caught four times "
        "in five, even with other seeds.",
        "",
        *_table(
            [
                "run",
                "metric",
                "reported",
                "accepted",
                "n",
                "measured",
                "std",
                "n",
                "delta",
                "margin",
                "sees",
                "verdict",
            ],
            [_gate_row(row, summaries) for row in verdict["rows"]],
        ),
        "",
        *_sight(verdict),
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


def _outcome(verdict: Mapping[str, Any]) -> str:
    """Return what the title says of the gate."""
    of_baseline = {
        "nothing": "judges nothing (gate.against: nothing)",
        "none": "has no accepted baseline yet",
        "accepted": "passes" if verdict["passes"] else "FAILS",
    }
    return of_baseline[verdict["baseline"]]


def _settings_section(verdict: Mapping[str, Any]) -> list[str]:
    """Return how the gate differs from the accepted one's, what was retired, and where the gate is misleading."""
    retired = [f"{run} was retired: {reason}" for run, reason in verdict["retired"].items()]
    lines = [*(f"changed since accepted: {line}" for line in verdict["settings"]), *retired, *verdict["notes"]]
    return ["", *(f"* {line}" for line in lines)] if lines else []


def _headline_section(summaries: Sequence[Mapping[str, Any]], shown: Sequence[Headline]) -> list[str]:
    """Return a ranking of the runs for each protocol, by its headline metric."""
    lines = []
    for headline in shown:
        columns = [f"{headline.protocol}.{name}" for name in (f"{headline.metric}.few", "worst_class", "macro_f1")]
        other = "recall" if headline.metric == "accuracy" else "accuracy"
        columns = [headline.path, *columns, f"{headline.protocol}.{other}.all"]
        ranked = [(s["run"], str(s["n"]), s["metrics"]) for s in rank(summaries, headline)]
        rows = [
            [str(place), run, n, *(_mean_and_std(metrics.get(column)) for column in columns)]
            for place, (run, n, metrics) in enumerate(ranked, start=1)
        ]
        why = f"Mean ± standard deviation over n seeds; {headline.reason}."
        lines += [f"## Headline of {headline.protocol}", "", why, "", *_table(["", "run", "n", *columns], rows), ""]
    return lines


def _sight(verdict: Mapping[str, Any]) -> list[str]:
    """Return the comparison of all numbers together, and the table of what the gate sees."""
    lines = []
    if (row := verdict["together"]) is not None:
        lines += [
            f"All comparisons together: {row['delta']:+.2f} accepted standard deviations on average, margin "
            f"{row['margin']:.2f}: {row['verdict']}.",
            "",
        ]
    elif verdict["power"] is not None and len(verdict["rows"]) > 1:
        lines += ["All comparisons together: not compared, as no seed is common to all of them.", ""]
    if (power := verdict["power"]) is not None:
        caught = [[f"{fall:g}", f"{100 * share:.0f} %"] for fall, share in power["caught"]]
        lines += [
            f"How often a model fails whose {verdict['primary']} is worse in every run, with {power['seeds']} other "
            "seeds, simulated from the accepted seeds:",
            "",
            *_table(["points worse", "fails"], [["0", f"{100 * power['false_alarms']:.1f} %"], *caught]),
            "",
        ]
    return lines


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
        _number(row["accepted"]),
        NONE if row["accepted_n"] is None else str(row["accepted_n"]),
        _number(row["mean"]),
        _number(row["std"]),
        str(row["n"]),
        _number(row["delta"], sign=True),
        _number(row["margin"]),
        _number(row["sees"]),
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
            c["recipes"] or "equal",
            c["source"],
        ]
        for c in claims
    ]
    head = ["claim", "metric", "difference", "standard error", "n", "verdict", "recipes", "source"]
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
