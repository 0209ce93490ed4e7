"""What the gate would see: how often it catches a model that is worse by so much, simulated from the accepted seeds.

A new seed is drawn as a random combination of the accepted seeds' distances from their mean, with normal weights, so
that runs and metrics move together as they did when they were accepted. Each replicate draws a baseline and a candidate
in this way, both with other seeds, and judges them as the gate does. A candidate mostly has equal seeds, which are less
noisy where they move together. If they did not at all, the two forms of the margin would share the risk for nothing:
of falls of 2 points in one run of digits_glt 78 % would then be caught, instead of 83 % (benchmarks/gate_sight.py).
"""

import numpy as np

REPLICATES = 2000
# the probability with which a smallest fall is caught
POWER = 0.8


def draw(values: np.ndarray, seeds: int, random: np.random.RandomState, replicates: int = REPLICATES) -> np.ndarray:
    """Return values of new seeds, R x seeds x K; values: S x K, of the accepted seeds, nan where one is missing.

    Means and covariances are those of the accepted seeds.
    """
    count = np.sum(~np.isnan(values), axis=0)
    mean = np.nansum(values, axis=0) / np.maximum(count, 1)
    distance = np.where(np.isnan(values), 0.0, values - mean) / np.sqrt(np.maximum(count - 1, 1))
    weights = random.standard_normal((replicates, seeds, len(values)))
    return mean + weights @ distance


def simulate(values: np.ndarray, candidates: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return an accepted baseline and an unchanged candidate with other seeds, for each replicate: R x (S + n) x K.

    values: the accepted ones, S x K. candidates: n. Each has nan in the rows of the other's seeds.
    """
    random = np.random.RandomState(seed)
    accepted = np.where(np.isnan(values), np.nan, draw(values, len(values), random))
    candidate = draw(values, candidates, random)
    none = np.full_like(accepted, np.nan), np.full_like(candidate, np.nan)
    return np.concatenate([accepted, none[1]], axis=1), np.concatenate([none[0], candidate], axis=1)


def smallest_fall(fall: np.ndarray, margin: np.ndarray, power: float = POWER) -> float:
    """Return the smallest true fall that is caught with probability `power`; fall, margin: R, of unchanged code.

    A model that is x points worse falls by `fall + x`, so x is caught where x > margin - fall.
    """
    return float(np.quantile(margin - fall, power))
