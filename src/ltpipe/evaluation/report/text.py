"""The short report, as markdown: for terminals and pull requests. Everything else is in report.html."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltpipe.evaluation.headline import Headline, rank
from ltpipe.evaluation.report.numbers import card_name, mean_and_std, number, number_of, outcome, reported_value

GATE = ("run", "metric", "reported", "accepted", "n", "measured", "std", "n", "delta", "margin", "sees", "verdict")


def render_markdown(
    verdict: Mapping[str, Any],
    validation: Mapping[str, Any],
    figures: Sequence[str],
    shown: Sequence[Headline] = (),
    advice: Sequence[str] = (),
) -> str:
    """Return the report's text.

    figures: file names of the figures, which lie beside it. shown: headline of each protocol. advice: sentences.
    """
    state, checks = verdict["state"], validation["expectations"]
    data = " ".join(sorted({d for s in verdict["summaries"] for d in s["data"]}))
    cards = ", ".join(f"`{card_name(summary['run'])}`" for summary in verdict["summaries"])
    lines = [
        f"# {state['benchmark']}: the gate {outcome(verdict)}",
        "",
        *([f"* {line}" for line in verdict["failed"]] + [""] if verdict["failed"] else []),
        *([*advice, ""] if advice else []),
        f"State `{state['digest']}`: parameters `{state['parameters']}`, data `{data}`, accepted baseline "
        f"`{state['accepted']}`.",
        f"{validation['rows']} manifest rows, {sum(e['success'] for e in checks)} of {len(checks)} expectations hold.",
        "Everything else (classes, mistakes, calibration, training, data, every metric) is in `report.html`.",
        f"Model cards: {cards}.",
        *_settings_section(verdict),
        "",
        *_headline_section(verdict["summaries"], shown),
        *_gate_section(verdict),
        *[f"![{figure}]({figure})" for figure in figures],
        "",
    ]
    return "\n".join(lines)


def _gate_section(verdict: Mapping[str, Any]) -> list[str]:
    return [
        "## Gate",
        "",
        "Rates in percent; n seeds; delta and margin in percentage points. "
        f"Unchanged code passes with probability {verdict['level']:g}. A fall as large as `sees` is caught four times "
        "in five, even with other seeds.",
        "",
        *_table(GATE, [_gate_row(row, verdict["summaries"]) for row in verdict["rows"]]),
        "",
        *_sight(verdict),
    ]


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
            [str(place), run, n, *(mean_and_std(metrics.get(column)) for column in columns)]
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


def _gate_row(row: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    reported = number(reported_value(row, summaries))
    verdict = row["verdict"] + (f": {row['reason']}" if row.get("reason") else "")
    return [
        row["run"],
        row["metric"],
        reported,
        number(row["accepted"]),
        number_of(row["accepted_n"]),
        number(row["mean"]),
        number(row["std"]),
        str(row["n"]),
        number(row["delta"], sign=True),
        number(row["margin"]),
        number(row["sees"]),
        verdict,
    ]
