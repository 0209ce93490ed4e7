"""Accepted baselines: what was measured when somebody accepted it, image by image, so that noise can be simulated."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltpipe.evaluation.metrics.measure import flatten
from ltpipe.storage.table import Table


def pack(correct: np.ndarray) -> str:
    """Bools as packed bits in base64."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack(text: str, count: int) -> np.ndarray:
    """`count` bools that `pack` packed."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8), count=count).astype(bool)


def baseline(benchmark: str, cells: Sequence[tuple[Mapping[str, Any], Table]], reason: str) -> dict[str, Any]:
    """The accepted baseline of (metrics, predictions) of every run and seed.

    Correctness is stored for each test image in id order. Raises ValueError where two cells are of different data.
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
            "correct": {split: _bits(rows) for split, rows in predictions.groupby("split", observed=True)},
        }
    for entry in runs.values():
        values = [seed["metrics"] for seed in entry["seeds"].values()]
        entry["n"] = len(values)
        entry["mean"] = {k: round(float(np.mean([v[k] for v in values])), 6) for k in values[0]}
        entry["std"] = {k: _std([v[k] for v in values]) for k in values[0]}
    return {"benchmark": benchmark, "data": data.pop(), "reason": reason, "runs": runs}


def _bits(rows: Table) -> str:
    ordered = rows.sort_values("id")
    return pack((ordered["label"] == ordered["predicted"]).to_numpy())


def _std(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for a single value, which has none."""
    return round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else None
