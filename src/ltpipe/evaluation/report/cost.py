"""What the trainings cost, where it is recorded: mean over the seeds of a run, as a table and as JSON values.

A record counts only if it is of the checkpoint that was judged: its file is outside of the ledger, so it may be of an
earlier training, or missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltpipe.evaluation.report.cells import Cells
from ltpipe.evaluation.report.numbers import NONE
from ltpipe.evaluation.report.tables import Grid

HEAD = ("run", "n", "images/s", "training time", "memory", "GPU memory", "threads", "precision", "trained on")
UNITS = ((3600, "h"), (60, "min"), (1, "s"))  # seconds of each


def costs_of_runs(runs: Mapping[str, Cells]) -> dict[str, dict[str, Any]]:
    """Return for each run the mean and std of its records, and on what they were taken; None: nobody recorded it.

    images_per_second: of the epochs without their validation. seconds: of the whole training. host_bytes,
    device_bytes: peaks. n: seeds with a record.
    """
    return {run: _costs_of([record for record in cells.costs if record]) for run, cells in runs.items()}


def _costs_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    speeds = [record["images"] / record["stepping"] for record in records if record["images"]]
    numbers = {
        key: [r[key] for r in records if r[key] is not None] for key in ("seconds", "host_bytes", "device_bytes")
    }
    found: dict[str, Any] = {"n": len(records), "images_per_second": _spread(speeds)}
    found |= {key: _spread(values) for key, values in numbers.items()}
    return found | {key: sorted({record[key] for record in records}) for key in ("threads", "precision", "device")}


def _spread(values: Sequence[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def spent_grid(runs: Mapping[str, Cells]) -> Grid:
    """Return a row for each run; a dash where nothing is recorded."""
    rows = []
    for run, cost in costs_of_runs(runs).items():
        seeds = len(runs[run].costs)
        numbers = [_speed(cost["images_per_second"]), _time(cost["seconds"])]
        numbers += [_memory(cost[key]) for key in ("host_bytes", "device_bytes")]
        words = [", ".join(map(str, cost[key])) or NONE for key in ("threads", "precision", "device")]
        n = str(seeds) if cost["n"] == seeds else f"{cost['n']} of {seeds}"
        rows.append([run, n, *numbers, *words])
    return Grid(HEAD, rows)


def _speed(value: Mapping[str, Any] | None) -> str:
    return _mean_and_std(value, 1, "{:,.0f}")


def _memory(value: Mapping[str, Any] | None) -> str:
    return _mean_and_std(value, 1e6, "{:,.0f}", " MB")


def _time(value: Mapping[str, Any] | None) -> str:
    """Return a time in the largest unit of which there are two."""
    seconds = value["mean"] if value else 0
    size, unit = next((pair for pair in UNITS if seconds >= 2 * pair[0]), UNITS[-1])
    return _mean_and_std(value, size, "{:.1f}", f" {unit}")


def _mean_and_std(value: Mapping[str, Any] | None, size: float, form: str, unit: str = "") -> str:
    if value is None:
        return NONE
    std = "" if value["std"] is None else f" ± {form.format(value['std'] / size)}"
    return f"{form.format(value['mean'] / size)}{std}{unit}"
