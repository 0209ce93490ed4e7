"""Summarise a run: mean and deviation of every metric over its seeds, and the verdict on its reported number."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.evaluation.measure import flatten
from ltpipe.evaluation.reported import Reported, compare_with_reported

# what a cell's metrics say of the cell itself
IDENTITY = ("cell", "seed", "data", "code", "recipe", "measured", "checkpoint", "started_from")


def summarise(reported: Reported, *cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return mean and std of every metric over the seeds of one run, and the verdict on its reported number.

    cells: the metrics of each seed. Raises Refused if they are not of one run, or have different metrics.
    """
    runs = sorted({cell["cell"].rsplit(".", 1)[0] for cell in cells})
    if len(runs) > 1 or len({cell["cell"] for cell in cells}) < len(cells):
        raise Refused(f"metrics of one run and different seeds are needed, not of {[cell['cell'] for cell in cells]}")
    cell_metrics = [flatten(cell["protocols"]) for cell in cells]
    _require_same_metrics(cells, cell_metrics)
    table = {key: _spread([metrics[key] for metrics in cell_metrics]) for key in cell_metrics[0]}
    return {
        "run": runs[0].split(".")[1],
        "n": len(cells),
        "seeds": [cell["seed"] for cell in cells],
        "data": sorted({cell["data"] for cell in cells}),
        "code": sorted({cell["code"] for cell in cells}),
        "cells": [{key: cell.get(key) for key in IDENTITY} for cell in cells],
        "metrics": table,
        "reported": compare_with_reported(reported, table, len(cells)),
    }


def _spread(values: list[float]) -> dict[str, Any]:
    """Return mean, std (n - 1 in the denominator; None for a single value) and the values themselves."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "values": values}


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
