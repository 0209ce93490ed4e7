"""How far a mean over seeds may fall below the accepted one before it counts as worse.

The test images are the same on both sides, so they add no noise to a difference: only training does, by its seed. Each
run and metric has a margin of its own, a quantile of Student's t times a standard error. There are two forms.

* `spread`: the accepted seeds' standard deviation. It needs nothing of the candidate, so a candidate of which one seed
  collapsed cannot hide behind its own noise.
* `paired`: the standard deviation of the differences seed by seed, where the candidate's seeds were accepted too. Equal
  seeds share initial weights and the order of images, so that these differences are much less noisy.

A run has worsened if its mean falls by more than the smaller margin. The two forms share the risk of a false alarm
(Bonferroni), and so do all runs and metrics of the gate.

A deviation from three seeds is hardly known. So it borrows from the other runs, as much as the deviations of the runs
are alike (empirical Bayes: Smyth, Stat. Appl. Genet. Mol. Biol. 3(1), 2004, section 4): runs that differ tenfold keep
their own. Runs of equal seeds move together, so they know less than as many independent ones (`_distinct_runs`).

Arrays of values: ... x S x G, seeds by runs, nan where a run has no such seed; larger is better.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import polygamma, psi, stdtrit

# A variance of 0 has no logarithm; in squared percentage points this is less than any test set can show.
TINY = 1e-12


class Falls(NamedTuple):
    """Of each run, ... x G: the fall of the mean from accepted to candidate, its margin, and the accepted deviation."""

    fall: np.ndarray
    margin: np.ndarray
    deviation: np.ndarray


def compare(accepted: np.ndarray, candidate: np.ndarray, risk: float, smallest: np.ndarray | float = 0.0) -> Falls:
    """Return falls and margins of one metric of several runs; unchanged code exceeds a margin with probability `risk`.

    accepted, candidate: ... x S x G, aligned by seed. A run is paired if all its candidate seeds were accepted; then
    only these seeds are compared. smallest: least margin, G. With one accepted seed the margin is nan.
    """
    shared = ~np.isnan(accepted) & ~np.isnan(candidate)
    n = _count(candidate)
    paired = (shared.sum(axis=-2) == n) & (n > 1)
    reference = np.where(paired[..., None, :] & ~shared, np.nan, accepted)
    fall = _mean(reference) - _mean(candidate)
    variance, freedom = moderate(accepted)
    # a comparison without a seed has no fall, and a margin of nothing
    error = np.sqrt(variance * (1 / np.maximum(_count(reference), 1) + 1 / np.maximum(n, 1)))
    form_risk = np.where(paired, risk / 2, risk)
    margin = _quantile(freedom, form_risk) * error
    between, between_freedom = moderate(accepted - candidate)
    paired_error = np.sqrt(between / np.maximum(n, 1))
    paired_margin = np.where(paired, _quantile(between_freedom, form_risk) * paired_error, np.inf)
    margin = np.where(paired_margin < margin, paired_margin, margin)
    return Falls(fall, np.maximum(margin, smallest), np.sqrt(variance))


def spread_margin(deviation: float, known: int, seeds: int, risk: float) -> float:
    """Return the margin that `seeds` candidate seeds have against `known` accepted ones, without the other runs' help.

    deviation: standard deviation of the accepted seeds.
    """
    return float(_quantile(np.array(known - 1), np.array(risk))) * deviation * float(np.sqrt(1 / known + 1 / seeds))


def moderate(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variances of runs after borrowing from one another, and their degrees of freedom; ... x G each.

    values: ... x S x G, nan where a run has no such seed. A run with fewer than two values gets nan.
    """
    own = np.where(_count(values) > 1, _count(values) - 1.0, np.nan)
    variances = _variance(values)
    runs = np.sum(~np.isnan(own), axis=-1, keepdims=True)
    if runs.max(initial=0) < 2:
        return variances, own
    prior, weight = _prior(np.maximum(variances, TINY), own, runs)
    with np.errstate(invalid="ignore"):
        blend = np.where(np.isinf(weight), prior, (weight * prior + own * variances) / (weight + own))
    mean = np.nansum(own, axis=-1, keepdims=True) / np.maximum(runs, 1)
    # half of what independent runs would lend: the prior is an estimate too, which a quantile of t takes for known
    borrowed = np.minimum(weight, mean * (_distinct_runs(values, mean) - 1) / 2)
    return np.where(weight > 0, blend, variances), own + borrowed


def _distinct_runs(values: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Return how many independent runs know as much of a variance as these runs, ... x 1, between 1 and G.

    The mean of G variances has the variance of one, times (1 + (G - 1) r) / G, where r is the mean squared correlation
    of two runs. The square of an estimated correlation of independent runs is 1 / freedom on average, which is taken
    off. freedom: ... x 1.
    """
    centred = np.nan_to_num(values - _mean(values)[..., None, :])
    length = np.sqrt((centred**2).sum(axis=-2, keepdims=True))
    unit = centred / np.where(length > 0, length, 1)
    known = (_count(values) > 1).sum(axis=-1, keepdims=True)
    squares = ((np.swapaxes(unit, -1, -2) @ unit) ** 2).sum(axis=(-1, -2))[..., None] - (length > 0).sum(axis=-1)
    pairs = np.maximum(known * (known - 1), 1)
    chance = 1 / np.maximum(freedom, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        common = np.where(chance < 1, (squares / pairs - chance) / (1 - chance), 1.0)
    return known / (1 + (known - 1) * np.clip(common, 0, 1))


def _prior(variances: np.ndarray, freedom: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the common variance and its weight in degrees of freedom, ... x 1: 0 for one run, inf for alike runs."""
    logs = np.log(variances) - psi(freedom / 2) + np.log(freedom / 2)
    centre = np.nansum(logs, axis=-1, keepdims=True) / np.maximum(runs, 1)
    scatter = np.nansum((logs - centre) ** 2, axis=-1, keepdims=True) / np.maximum(runs - 1, 1)
    excess = scatter - np.nansum(polygamma(1, freedom / 2), axis=-1, keepdims=True) / np.maximum(runs, 1)
    weight = np.where(excess > 0, 2 * _inverse_trigamma(np.where(excess > 0, excess, 1.0)), np.inf)
    # all alike: the mean of the variances themselves, weighted by their degrees of freedom, is the best estimate
    total = np.maximum(np.nansum(freedom, axis=-1, keepdims=True), 1)
    pooled = np.nansum(variances * freedom, axis=-1, keepdims=True) / total
    finite = np.where(np.isinf(weight), 1.0, weight)
    common = np.where(np.isinf(weight), pooled, np.exp(centre + psi(finite / 2) - np.log(finite / 2)))
    return common, np.where(runs > 1, weight, 0.0)


def _inverse_trigamma(value: np.ndarray) -> np.ndarray:
    """Return x with trigamma(x) = value, by Newton's method from below (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(8):  # the error shrinks quadratically
        trigamma = polygamma(1, x)
        x = x + trigamma * (1 - trigamma / value) / polygamma(2, x)
    return x


def together(
    accepted: np.ndarray, candidate: np.ndarray, deviation: np.ndarray, smallest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one value a seed, ... x S x 1, accepted and candidate, and the least margin of their means, ... x 1.

    A value is the mean over all comparisons, each in units of its accepted deviation. accepted, candidate: ... x S x K,
    a column for each run and metric. deviation: ... x K. smallest: least margin of each, K. Falls that share a sign add
    up here, though each of them alone is within its margin. Seeds that a comparison lacks are nan; comparisons without
    a deviation are left out.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(deviation > 0, 1 / deviation, 0.0)
    weight = weight / np.maximum((weight > 0).sum(axis=-1, keepdims=True), 1)
    before, after = (
        np.where(weight[..., None, :] > 0, values * weight[..., None, :], 0.0).sum(axis=-1, keepdims=True)
        for values in (accepted, candidate)
    )
    # without a least margin, values that differ by how they are rounded could exceed a margin of nothing
    return before, after, (smallest * weight).sum(axis=-1, keepdims=True)


def _quantile(freedom: np.ndarray, risk: np.ndarray) -> np.ndarray:
    """Return the value that Student's t exceeds with probability `risk`; nan without a degree of freedom."""
    with np.errstate(invalid="ignore"):
        quantile: np.ndarray = -stdtrit(np.where(freedom > 0, freedom, np.nan), risk)
    return quantile


def _count(values: np.ndarray) -> np.ndarray:
    return np.sum(~np.isnan(values), axis=-2)


def _mean(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: np.ndarray = np.nansum(values, axis=-2) / _count(values)
    return mean


def _variance(values: np.ndarray) -> np.ndarray:
    """Return the variance with n - 1 in the denominator; nan for fewer than two values."""
    count = _count(values)
    squares = np.nansum((values - _mean(values)[..., None, :]) ** 2, axis=-2)
    return np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan)
