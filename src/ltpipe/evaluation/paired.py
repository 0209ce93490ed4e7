"""The difference of two models on the same pictures, with an interval by a paired, stratified bootstrap.

Both models answer every picture, so the noise that they share (which pictures are hard) cancels: what is drawn again
is the difference of a picture, 1 where only B is right, -1 where only A is, 0 else. Three rules:

* Originals are drawn, not pictures. One original may be in a split several times (six colour schemes of one digit);
  its pictures rise and fall together, and as independent ones they would give far too short an interval.
* Each class is drawn by itself (stratified), as a test split has fixed class sizes. Of the m originals of a class m - 1
  are drawn: with m, the variance would be too small by the factor (m - 1) / m (McCarthy and Snowden, Vital and
  Health Statistics 2(95), 1985; Rao and Wu, JASA 83, 1988). One original has no variance to see.
* The interval is between percentiles of the replicates (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
  section 13.3). If no picture changed sides there is no interval, and `at_most` says how many might have.

Why not McNemar's test: it takes pictures for independent, and gives no interval for the mean over classes.

Measured at level 0.95 on models of which only B is right in 4 %, only A in 6 % of the originals (2,000 draws, 1,000
replicates each): with 10 classes of 40 originals the interval holds the true difference in 94.3 % of the draws, as well
if an original is one picture as if it is six that go together (there, pictures drawn instead of originals give 56 %).
With two classes of 40 it is 93.5 %, with one 87.7 %: read the interval of a single small class as a hint.
"""

from typing import NamedTuple

import numpy as np


class Drawing(NamedTuple):
    """How replicates are drawn. level: share of draws whose interval holds the true difference."""

    resamples: int = 2000
    level: float = 0.95
    seed: int = 0


class Difference(NamedTuple):
    """A rate of A and B in percent, B - A in points, and its interval; None where nothing varies."""

    a: float
    b: float
    difference: float
    low: float | None
    high: float | None


def compare_sides(
    labels: np.ndarray, sources: np.ndarray, a: np.ndarray, b: np.ndarray, drawing: Drawing
) -> dict[str, Difference]:
    """Return the difference in accuracy and in recall (the mean over the classes that occur).

    labels, sources: class and original of each picture, N. a, b: whether the models are right, bool, N; N > 0.
    """
    classes, label = np.unique(labels, return_inverse=True)
    size = np.bincount(label)
    hits = [np.bincount(label, weights=side, minlength=len(classes)) for side in (a, b)]
    gains, counts = replicate(label, sources, b.astype(int) - a.astype(int), drawing)
    rates = {
        "accuracy": ([h.sum() / size.sum() for h in hits], gains.sum(axis=1) / counts.sum(axis=1)),
        "recall": ([(h / size).mean() for h in hits], (gains / counts).mean(axis=1)),
    }
    changed = bool((a != b).any())
    return {name: _to_difference(*of, drawing.level, changed) for name, of in rates.items()}


def _to_difference(sides: list[float], replicates: np.ndarray, level: float, changed: bool) -> Difference:
    a, b = (100 * float(side) for side in sides)
    low, high = 100 * np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    known = changed and np.ptp(replicates) > 0  # of a single original, or of equal ones, nothing varies
    return Difference(a, b, b - a, *((float(low), float(high)) if known else (None, None)))


def replicate(
    label: np.ndarray, sources: np.ndarray, gain: np.ndarray, drawing: Drawing
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of `gain` and the number of pictures of each class in each replicate, R x C each.

    label: 0..C-1, each with a picture, N. Both are scaled to the class's number of originals.
    """
    random = np.random.default_rng(drawing.seed)
    columns = [_draw_class(sources[label == c], gain[label == c], drawing, random) for c in range(label.max() + 1)]
    gains, counts = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    return gains, counts


def _draw_class(
    sources: np.ndarray, gain: np.ndarray, drawing: Drawing, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of one class in each replicate, R and R."""
    _, original = np.unique(sources, return_inverse=True)
    of_originals = np.stack([np.bincount(original, weights=gain), np.bincount(original)], axis=1)
    # originals with equal sums are interchangeable: drawing their kinds is the same law, and needs no R x m numbers
    kinds, times = np.unique(of_originals, axis=0, return_counts=True)
    m = len(of_originals)
    drawn = max(m - 1, 1)
    sums = random.multinomial(drawn, times / m, size=drawing.resamples) @ kinds * (m / drawn)
    return sums[:, 0], sums[:, 1]


def at_most(originals: int, level: float) -> float:
    """Return the largest share in percent that may change sides if 0 of `originals` did (Clopper and Pearson, 1934)."""
    return float(100 * (1 - (1 - level) ** (1 / originals)))
