"""How far a mean over seeds may fall below the accepted one before it counts as worse: a margin from a simulation.

Unchanged code gives other numbers with other seeds, or the same seeds on another machine. Each replicate draws the
sources of the test set with replacement (a source that appears several times, as in Test-GBL, comes or goes as a
whole), draws seeds for a baseline and for a candidate from the accepted seeds, and notes how far each metric of each
run falls. The margins are such that in a share `level` of the replicates NO metric of NO run falls by more than its
margin: one joint statement, so that a gate with many comparisons still passes unchanged code.

Two corrections for few accepted seeds, without which the gate would cry wolf: drawing from S values understates their
spread by sqrt((S-1)/S); and the spread itself is estimated from sum(S-1) degrees of freedom, pooled over the runs, so
each replicate is divided by a chi draw of as many (as in Student's t).
"""

from collections.abc import Mapping

import numpy as np

REPLICATES = 4000
LEVEL = 0.95


def cluster_sums(correct: np.ndarray, member: np.ndarray, clusters: np.ndarray, count: int) -> np.ndarray:
    """Correct images of each cluster, G x S. correct: S x N bool. member: N bool. clusters: N, 0..G-1."""
    weights = correct[:, member].astype(np.float64)
    return np.stack([np.bincount(clusters[member], w, minlength=count) for w in weights], axis=1)


def simulate(
    sums: Mapping[str, Mapping[str, np.ndarray]],
    sizes: Mapping[str, np.ndarray],
    seeds: int,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """Falls of each metric of each run in each replicate, in percentage points: run -> metric -> R.

    sums: run -> metric -> correct images by cluster and accepted seed, G x S. sizes: metric -> images by cluster, G.
    seeds: how many seeds the candidate has.
    """
    random = np.random.RandomState(seed)
    clusters = len(next(iter(sizes.values())))
    drawn = random.multinomial(clusters, np.full(clusters, 1 / clusters), size=replicates).astype(np.float64)
    falls: dict[str, dict[str, np.ndarray]] = {}
    for run, metrics in sums.items():
        accepted = next(iter(metrics.values())).shape[1]
        rows = np.arange(replicates)[:, None]
        before = random.randint(accepted, size=(replicates, accepted))
        after = random.randint(accepted, size=(replicates, seeds))
        wider = np.sqrt(accepted / (accepted - 1))
        falls[run] = {}
        for metric, table in metrics.items():
            rates = 100 * (drawn @ table) / np.maximum(drawn @ sizes[metric], 1)[:, None]
            falls[run][metric] = wider * (rates[rows, before].mean(axis=1) - rates[rows, after].mean(axis=1))
    return falls


def margins(
    falls: Mapping[str, Mapping[str, np.ndarray]],
    freedom: int,
    smallest: Mapping[str, float],
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, float]:
    """Margin of each metric, in percentage points, one for all runs.

    freedom: sum over runs of accepted seeds - 1. smallest: metric -> the least margin (one image's share).
    """
    metrics = list(next(iter(falls.values())))
    spread = {m: float(np.sqrt(np.mean([run[m].var() for run in falls.values()]))) for m in metrics}
    moving = [m for m in metrics if spread[m] > 0]
    if not moving:
        return dict(smallest)
    worst = np.max([run[m] / spread[m] for run in falls.values() for m in moving], axis=0)
    random = np.random.RandomState(seed + 1)
    worst = worst * np.sqrt(freedom / random.chisquare(freedom, size=len(worst)))
    factor = float(np.quantile(worst, level))
    return {m: max(factor * spread[m], smallest[m]) for m in metrics}
