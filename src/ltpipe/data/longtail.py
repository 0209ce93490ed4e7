"""Class sizes of a long tail, and shares of a class as integers: pure arithmetic, no image."""

from collections.abc import Sequence

import numpy as np


def exponential(largest: int, rho: float, classes: int) -> np.ndarray:
    """n_c = int(largest * (1/rho)^(c/(classes-1))), c = 0..classes-1, int64.

    Cao et al., NeurIPS 2019 (LDAM), whose generator truncates; class 0 is the largest. The smallest class can be one
    less than largest/rho where the power falls below an integer in floating point, as in the authors' code.
    """
    if classes == 1:
        return np.array([largest], dtype=np.int64)
    return np.array([int(largest * (1 / rho) ** (c / (classes - 1.0))) for c in range(classes)], dtype=np.int64)


def shares(total: int, weights: Sequence[float]) -> np.ndarray:
    """`total` split in proportion to `weights` into positive integers, int64 (largest remainders; ties to the first).

    Every share is at least 1, so that no rank of a rare class is empty; needs total >= len(weights).
    """
    if total < len(weights):
        raise ValueError(f"{total} images cannot give each of {len(weights)} ranks one")
    exact = total * np.asarray(weights, dtype=np.float64) / np.sum(weights)
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    while counts.sum() < total:
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > total:
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    return counts
