"""How far a mean over seeds may fall below the accepted one before it counts as worse: a margin from a simulation.

Unchanged code gives other numbers with other seeds, or with the same seeds on another machine. Each replicate of the
simulation

1. draws the sources of the test set with replacement. The images of a source are drawn together, because they are not
   independent: in Test-GBL a source appears several times;
2. draws seeds for a baseline and for a candidate from the accepted seeds;
3. records by how much each metric of each run falls from the baseline to the candidate.

The margins are such that in a share `level` of the replicates no metric of any run falls by more than its margin. It is
one joint statement, so that unchanged code passes a gate with many comparisons as often as a gate with one.

Two corrections for few accepted seeds, without which the gate would fail too often. Drawing from S values understates
their spread by sqrt((S-1)/S). And the spread itself is only an estimate with sum(S-1) degrees of freedom, pooled over
the runs, so each replicate is divided by a chi draw with as many degrees (as in Student's t).
"""

from collections.abc import Mapping

import numpy as np

REPLICATES = 4000
LEVEL = 0.95


def cluster_sums(correct: np.ndarray, member: np.ndarray, clusters: np.ndarray, count: int) -> np.ndarray:
    """Return how many images of each cluster are correct, G x S; only images with `member` count.

    correct: S x N, bool. member: N, bool. clusters: cluster of each image, N, 0..G-1. count: G.
    """
    weights = correct[:, member].astype(np.float64)
    return np.stack([np.bincount(clusters[member], w, minlength=count) for w in weights], axis=1)


def simulate(
    sums: Mapping[str, Mapping[str, np.ndarray]],
    sizes: Mapping[str, np.ndarray],
    seeds: int,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, dict[str, np.ndarray]]:
    """Return by how much each metric of each run falls in each replicate, in percentage points: run -> metric -> R.

    sums: run -> metric -> correct images by cluster and accepted seed, G x S. sizes: metric -> images by cluster, G.
    seeds: how many seeds the candidate has.
    """
    random = np.random.RandomState(seed)
    clusters = len(next(iter(sizes.values())))
    # How often each cluster is drawn, R x G. All runs share the draws: they are measured on the same test images.
    drawn = random.multinomial(clusters, np.full(clusters, 1 / clusters), size=replicates).astype(np.float64)
    falls: dict[str, dict[str, np.ndarray]] = {}
    for run, metrics in sums.items():
        accepted = next(iter(metrics.values())).shape[1]
        rows = np.arange(replicates)[:, None]
        # The metrics of a run share the draws of seeds, which keeps their correlation.
        before = random.randint(accepted, size=(replicates, accepted))
        after = random.randint(accepted, size=(replicates, seeds))
        wider = np.sqrt(accepted / (accepted - 1))
        falls[run] = {}
        for metric, table in metrics.items():
            # R x S; at least 1 in the denominator, because a draw may miss every image of a small group
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
    """Return the margin of each metric in percentage points; all runs share it.

    falls: see `simulate`. freedom: degrees of freedom, the sum over runs of accepted seeds - 1. smallest: metric -> the
    least margin (the share of one image). level: share of the replicates in which no metric falls beyond its margin.
    """
    metrics = list(next(iter(falls.values())))
    # Root mean square over the runs: a run with few seeds borrows the spread of the others.
    spread = {m: float(np.sqrt(np.mean([run[m].var() for run in falls.values()]))) for m in metrics}
    moving = [m for m in metrics if spread[m] > 0]
    if not moving:
        return dict(smallest)
    # In units of its spread, the worst fall of each replicate over all runs and metrics: this makes the level joint.
    worst = np.max([run[m] / spread[m] for run in falls.values() for m in moving], axis=0)
    random = np.random.RandomState(seed + 1)  # not the stream that drew the falls
    worst = worst * np.sqrt(freedom / random.chisquare(freedom, size=len(worst)))
    factor = float(np.quantile(worst, level))
    return {m: max(factor * spread[m], smallest[m]) for m in metrics}
