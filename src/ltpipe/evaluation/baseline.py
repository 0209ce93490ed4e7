"""Accepted baselines: the numbers that somebody accepted, and for each test image whether it was classified correctly.

The margin of the gate is simulated from these bits (ltpipe.evaluation.margin): means and deviations alone would not do.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltpipe.evaluation.measure import flatten
from ltpipe.storage.table import Table


def pack_bits(correct: np.ndarray) -> str:
    """Encode bools, N, as base64 text, eight to a byte."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """Return the `count` bools that `pack_bits` encoded; count is needed because the last byte is padded."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8), count=count).astype(bool)


def build_baseline(benchmark: str, cells: Sequence[tuple[Mapping[str, Any], Table]], reason: str) -> dict[str, Any]:
    """Return the content of conf/accepted/<benchmark>.json. cells: (metrics, predictions) of every run and seed.

    The bits of a test split are in the order of the image ids. Raises ValueError if the cells were measured on
    different data.
    """
    data = {metrics["data"] for metrics, _ in cells}
    if len(data) != 1:
        raise ValueError(f"cells of different data cannot be one baseline: {sorted(data)}")
    runs: dict[str, Any] = {}
    for metrics, predictions in cells:
        _, run, seed = metrics["cell"].rsplit(".", 2)
        entry = runs.setdefault(run, {"code": metrics["code"], "seeds": {}})
        entry["seeds"][seed] = {
            "seed": metrics["seed"],
            "metrics": {k: round(v, 6) for k, v in flatten(metrics["protocols"]).items()},
            "correct": {split: _correct_bits(rows) for split, rows in predictions.groupby("split", observed=True)},
        }
    for entry in runs.values():
        values = [seed["metrics"] for seed in entry["seeds"].values()]
        entry["n"] = len(values)
        entry["mean"] = {k: round(float(np.mean([v[k] for v in values])), 6) for k in values[0]}
        entry["std"] = {k: _sample_deviation([v[k] for v in values]) for k in values[0]}
    return {"benchmark": benchmark, "data": data.pop(), "reason": reason, "runs": runs}


def _correct_bits(rows: Table) -> str:
    # The order of the ids is the same on every machine; the judge sorts the manifest in the same way.
    ordered = rows.sort_values("id")
    return pack_bits((ordered["label"] == ordered["predicted"]).to_numpy())


def _sample_deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation with n - 1 in the denominator; None for a single value."""
    return round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else None
