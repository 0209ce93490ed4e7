"""The tables of the page that compare runs. A cell is text; a column named `run` or `verdict` gets the page's marks."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ltpipe.evaluation.headline import Headline
from ltpipe.evaluation.metrics import higher_is_better
from ltpipe.evaluation.report.numbers import NONE, mean_and_std, number, number_of, reported_value
from ltpipe.evaluation.report.recommend import Score
from ltpipe.storage.manifest import GROUPS

# e.g. 1,250 or +0.25 or 81.20 ± 1.10 or 25 %
NUMBER = re.compile(r"[+-]?\d[\d,.]*( ± [\d,.-]+)?( [a-zA-Z%]{1,3})?")


class Grid(NamedTuple):
    """A table: its head and its rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column holds numbers, which stand below one another at their last digit."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.head)
        return [
            any(c != NONE for c in cells) and all(c == NONE or NUMBER.fullmatch(c) for c in cells) for cells in columns
        ]


def gate_grid(verdict: Mapping[str, Any]) -> Grid:
    """Return a row for each comparison, those that do not pass first."""
    head = ["run", "metric", "reported", "accepted", "n acc.", "measured", "n", "std", "difference", "margin"]
    rows = [
        [
            row["run"],
            row["metric"],
            number(reported_value(row, verdict["summaries"])),
            number(row["accepted"]),
            number_of(row["accepted_n"]),
            number(row["mean"]),
            str(row["n"]),
            number(row["std"]),
            number(row["delta"], sign=True),
            number(row["margin"]),
            number(row["sees"]),
            row["verdict"],
            row.get("reason") or "",
        ]
        for row in sorted(verdict["rows"], key=lambda row: row["verdict"] == "pass")
    ]
    head += ["smallest fall caught", "verdict", "reason"]
    empty = {column for column in ("reported", "reason") if all(row[head.index(column)] in ("", NONE) for row in rows)}
    shown = [k for k, title in enumerate(head) if title not in empty]
    return Grid([head[k] for k in shown], [[row[k] for k in shown] for row in rows])


def protocol_grid(summaries: Sequence[Mapping[str, Any]], shown: Sequence[Headline]) -> Grid:
    """Return the protocols side by side: the headline of each, and what the attributes cost (clt minus glt)."""
    paths = [headline.path for headline in shown]
    rows = [[s["run"], str(s["n"]), *(mean_and_std(s["metrics"].get(path)) for path in paths)] for s in summaries]
    by_name = {headline.protocol: headline for headline in shown}
    head = ["run", "n", *paths]
    if {"clt", "glt"} <= set(by_name) and by_name["clt"].metric == by_name["glt"].metric:
        pair = by_name["clt"].path, by_name["glt"].path
        for row, summary in zip(rows, summaries, strict=True):
            row.append(_fall(summary["metrics"], *pair))
        head.append("cost of attributes: clt - glt")
    return Grid(head, rows)


def _fall(metrics: Mapping[str, Any], first: str, second: str) -> str:
    known = first in metrics and second in metrics
    return number(metrics[first]["mean"] - metrics[second]["mean"], sign=True) if known else NONE


def group_grid(summaries: Sequence[Mapping[str, Any]], headline: Headline) -> Grid:
    """Return the headline metric of the groups that have images."""
    prefix = f"{headline.protocol}.{headline.metric}"
    return _parts_grid(summaries, prefix, ["all", *GROUPS], [f"{headline.protocol}.worst_class"])


def attribute_grid(summaries: Sequence[Mapping[str, Any]], protocol: str) -> Grid | None:
    """Return accuracy by attribute: by name if the attributes have names, else by rank; None without attributes."""
    prefix = f"{protocol}.accuracy."
    found = {key.removeprefix(prefix) for s in summaries for key in s["metrics"] if key.startswith(prefix)}
    named = sorted(part for part in found if part.startswith("attribute="))
    ranked = sorted((p for p in found if p[9:].isdigit()), key=lambda part: int(part[9:]))
    if not (parts := named or ranked):
        return None
    return _parts_grid(summaries, f"{protocol}.accuracy", parts, [f"{protocol}.worst_attribute"])


def _parts_grid(summaries: Sequence[Mapping[str, Any]], prefix: str, parts: Sequence[str], more: Sequence[str]) -> Grid:
    paths = [*(f"{prefix}.{part}" for part in parts), *more]
    present = [path for path in paths if any(path in s["metrics"] for s in summaries)]
    titles = [path.rpartition(".")[2].replace("attribute=", "") for path in present]
    kept = [s for s in summaries if any(path in s["metrics"] for path in present)]
    return Grid(
        ["run", *titles], [[s["run"], *(mean_and_std(s["metrics"].get(path)) for path in present)] for s in kept]
    )


def score_grid(scores: Mapping[str, Score]) -> Grid:
    """Return the validation scores, the best one first."""
    rows = [
        [run, number_of(score.images), str(len(score.by_seed)), number(score.mean), number(score.std)]
        for run, score in scores.items()
    ]
    return Grid(["run", "validation images", "n", "mean recall, %", "std"], rows)


def power_grid(power: Mapping[str, Any]) -> Grid:
    """Return how often a model fails that is worse by so much."""
    caught = [[f"{fall:g}", f"{100 * share:.0f} %"] for fall, share in power["caught"]]
    return Grid(["points worse", "fails"], [["0", f"{100 * power['false_alarms']:.1f} %"], *caught])


def claims_grid(claims: Sequence[Mapping[str, Any]]) -> Grid:
    """Return what papers claim of the order of methods, beside what was measured."""
    rows = [
        [
            f"{c['better']} > {c['than']}",
            c["metric"],
            number(c["difference"], sign=True),
            number(c["error"]),
            str(c["n"]),
            c["verdict"],
            c["recipes"] or "equal",
            c["source"],
        ]
        for c in claims
    ]
    return Grid(["claim", "metric", "difference", "standard error", "n", "answer", "recipes", "source"], rows)


def metrics_grid(summaries: Sequence[Mapping[str, Any]]) -> Grid:
    """Return a row for each metric and a column for each run; the numbers of images are left out."""
    keys = list(dict.fromkeys(key for s in summaries for key in s["metrics"] if not key.endswith(".n")))
    rows = [
        [key, "higher" if higher_is_better(key) else "lower", *(mean_and_std(s["metrics"].get(key)) for s in summaries)]
        for key in keys
    ]
    return Grid(["metric", "better", *(f"{s['run']} (n {s['n']})" for s in summaries)], rows)


def runs_grid(summaries: Sequence[Mapping[str, Any]]) -> Grid:
    """Return what is known of each run: its name in the paper, seeds, code and the verdict on the reported number."""
    head = ["run", "label", "seeds", "code", "reported", "verdict on it", "why"]
    return Grid(head, [_run_row(summary) for summary in summaries])


def _run_row(summary: Mapping[str, Any]) -> list[str]:
    paper = summary["reported"]
    value = NONE if paper["value"] is None else f"{paper['value']:g} ({paper['metric']}, {paper['source']})"
    return [
        summary["run"],
        paper["label"] or NONE,
        " ".join(map(str, summary["seeds"])),
        " ".join(summary["code"]),
        value,
        paper["verdict"],
        paper["why"] or NONE,
    ]
