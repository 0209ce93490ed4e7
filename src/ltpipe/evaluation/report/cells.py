"""What the cells of a run left: details, training logs, predictions and costs, a list of its seeds each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ltpipe.storage.table import Table


class Cells(NamedTuple):
    """The seeds of one run, in the order in which they were judged. costs: None where nobody recorded it."""

    details: list[Mapping[str, Any]]
    logs: list[Table]
    predictions: list[Table]
    costs: list[Mapping[str, Any] | None]

    def tables(self, protocol: str) -> list[list[Mapping[str, Any]]]:
        """Return for each seed the rows of the classes; none if the protocol does not measure the run."""
        return [d["protocols"][protocol]["classes"] for d in self.details if protocol in d["protocols"]]

    def recall(self, protocol: str) -> np.ndarray:
        """Return the recall of each class that has test images, seeds x classes, in percent."""
        return np.array([[row["recall"] for row in table] for table in self.tables(protocol)], dtype=float)


def group_cells(
    details: Sequence[Mapping[str, Any]],
    logs: Sequence[Table],
    predictions: Sequence[Table],
    costs: Sequence[Mapping[str, Any] | None],
) -> dict[str, Cells]:
    """Return run -> its cells. The four lists are in one order."""
    runs: dict[str, Cells] = {}
    for detail, log, table, cost in zip(details, logs, predictions, costs, strict=True):
        cells = runs.setdefault(detail["cell"].split(".")[1], Cells([], [], [], []))
        cells.details.append(detail)
        cells.logs.append(log)
        cells.predictions.append(table)
        cells.costs.append(cost)
    return runs


def measured_runs(runs: Mapping[str, Cells], protocol: str) -> list[str]:
    """Return the runs that the protocol measures."""
    return [run for run, cells in runs.items() if cells.tables(protocol)]
