"""Tables for the ledger's views (`dvc plots show`, `dvc metrics show`): one for each question, a column for each run.

DVC draws the columns of one file as lines of one plot, and names the lines as the columns. All numbers are means over
the seeds of a run, in percent.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ltpipe.evaluation.headline import Headline, headlines
from ltpipe.evaluation.metrics.ece import BINS
from ltpipe.recipe.cell import require_cell
from ltpipe.storage.table import Table

SHOWN = ("cell", "recipe", "code", "data")  # what details and training logs say of their cell
Details = Sequence[Mapping[str, Any]]


def overlays(
    verdict: Mapping[str, Any], *cells: Mapping[str, Any] | Table
) -> tuple[dict[str, dict[str, float]], Table, Table, Table]:
    """Return the means, and the tables of training, of recall by class size, and of reliability.

    cells: details (dicts) and training logs (tables) of every run and seed, as for the report. Raises Refused if one of
    them is of another cell, recipe, code or data than the metrics that were judged.
    """
    details = [cell for cell in cells if isinstance(cell, Mapping)]
    logs = [cell for cell in cells if not isinstance(cell, Mapping)]
    judged = [{key: cell[key] for key in SHOWN} for summary in verdict["summaries"] for cell in summary["cells"]]
    for asked, detail, log in zip(judged, details, logs, strict=True):
        require_cell("the details", detail, asked)
        require_cell("the training log", log.iloc[0].to_dict(), asked)
    means = tabulate_means(verdict["summaries"], headlines(details))
    return means, tabulate_training(logs), tabulate_recall(details), tabulate_reliability(details)


def tabulate_means(summaries: Sequence[Mapping[str, Any]], shown: Sequence[Headline]) -> dict[str, dict[str, float]]:
    """Return protocol -> run -> mean of the headline metric. Each run has one number: of its last, hardest protocol.

    One number, so that a row of `dvc exp show` holds all runs. shown: the headlines, in the order of the protocols.
    """
    found: dict[str, dict[str, float]] = {}
    for summary in summaries:
        hardest = [headline for headline in shown if headline.path in summary["metrics"]][-1]
        mean = round(summary["metrics"][hardest.path]["mean"], 2)
        found.setdefault(hardest.protocol, {})[summary["run"]] = mean
    return found


def tabulate_training(logs: Iterable[Table]) -> Table:
    """Return the macro recall on validation of each epoch (rows) and run (columns); empty where a run has no epoch."""
    import pandas as pd

    rows = [
        log[["epoch", "val_macro_recall"]].assign(run=log["cell"].iloc[0].split(".")[1])
        for log in logs
        if "val_macro_recall" in log
    ]
    if not rows:
        return pd.DataFrame({"epoch": []})
    return _spread_runs(pd.concat(rows), "epoch", "val_macro_recall")


def tabulate_recall(details: Details) -> Table:
    """Return the recall of classes by their number of training images (rows), for each protocol and run (columns)."""
    import pandas as pd

    rows = [
        {"run": f"{protocol}.{_run(cell)}", "train_images": row["train_images"], "recall": row["recall"]}
        for cell in details
        for protocol, shown in cell["protocols"].items()
        for row in shown["classes"]
    ]
    return _spread_runs(pd.DataFrame(rows), "train_images", "recall")


def tabulate_reliability(details: Details) -> Table:
    """Return the accuracy in bins of confidence (rows: the middle of the bin), for each protocol and run (columns).

    The bins of all seeds are pooled, weighted by their images.
    """
    import pandas as pd

    rows = [
        (f"{protocol}.{_run(cell)}", _middle(row["confidence"]), row["n"], row["n"] * row["accuracy"])
        for cell in details
        for protocol, shown in cell["protocols"].items()
        for row in shown["reliability"]
    ]
    pooled = pd.DataFrame(rows, columns=["run", "confidence", "n", "right"]).groupby(["run", "confidence"]).sum()
    pooled["accuracy"] = pooled["right"] / pooled["n"]
    return _spread_runs(pooled.reset_index(), "confidence", "accuracy")


def _middle(confidence: float) -> float:
    """Return the middle of the bin, in percent, that a mean confidence lies in."""
    width = 100 / BINS
    return round(width * (min(int(confidence / width), BINS - 1) + 0.5), 2)


def _run(cell: Mapping[str, Any]) -> str:
    return str(cell["cell"]).split(".")[1]


def _spread_runs(rows: Table, x: str, y: str) -> Table:
    """Return a row for each x and a column for each run: the mean of y, with two digits."""
    table: Table = rows.pivot_table(index=x, columns="run", values=y, aggfunc="mean").round(2).reset_index()
    table.columns.name = None
    return table
