"""Compare the seeds of all gated runs and metrics with the accepted seeds at once, as one test with one risk.

The risk of a false alarm, 1 - gate.level, is shared: 90 % for the primary metric, 5 % for the other metrics, 5 % for
all comparisons together. Inside a share all comparisons have equal parts (Bonferroni), so that unchanged code passes
with probability `level`, however the numbers depend on one another. Measured at level 0.95 on 20,000 normal draws of
three runs and three metrics: 0.95 to 0.98, with 12 seeds and with 3. If the runs' deviations are as 1, 3 and 10,
borrowing gives the noisiest too little: 0.945 with 12 seeds, 0.91 with 3.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ltpipe.evaluation.margin import Falls, compare, together
from ltpipe.evaluation.power import simulate, smallest_fall

PRIMARY, OTHERS, TOGETHER = 0.9, 0.05, 0.05


class Column(NamedTuple):
    """One comparison: a metric of a run."""

    run: str
    metric: str
    sign: int  # -1 if a smaller value is better
    smallest: float  # least margin in points: the share of one image


class Power(NamedTuple):
    """What the gate sees of models with other seeds, from a simulation."""

    smallest: np.ndarray  # K: the smallest fall of one comparison that is caught with probability 0.8
    false_alarms: float  # share of unchanged models that fail
    caught: dict[float, float]  # fall of the primary metric in all runs, in points -> share that fails


def share_risk(columns: Sequence[Column], primary: str, risk: float) -> tuple[np.ndarray, float]:
    """Return the risk of each comparison, K, and that of all together; 0 if there is only one comparison."""
    first = np.array([column.metric == primary for column in columns])
    shares = {
        "primary": PRIMARY * bool(first.any()),
        "others": OTHERS * bool((~first).any()),
        "together": TOGETHER * (len(columns) > 1),
    }
    total = sum(shares.values())
    part = np.where(first, shares["primary"] / max(first.sum(), 1), shares["others"] / max((~first).sum(), 1))
    return risk * part / total, risk * shares["together"] / total


def compare_all(
    accepted: np.ndarray, candidate: np.ndarray, columns: Sequence[Column], primary: str, level: float
) -> tuple[Falls, Falls | None]:
    """Return the falls of every comparison, ... x K, and those of all together, ... x 1 (None for one comparison).

    accepted, candidate: ... x S x K, aligned by seed, nan where a seed is missing. Falls of single comparisons are in
    the metric's points, those of all together in standard deviations. Runs lend one another within a metric only.
    """
    risks, _ = share_risk(columns, primary, 1 - level)
    sign = np.array([column.sign for column in columns])
    shape = (*accepted.shape[:-2], len(columns))
    fall, margin, deviation = np.empty(shape), np.empty(shape), np.empty(shape)
    for metric in dict.fromkeys(column.metric for column in columns):
        at = [number for number, column in enumerate(columns) if column.metric == metric]
        least = np.array([columns[number].smallest for number in at])
        fall[..., at], margin[..., at], deviation[..., at] = compare(
            accepted[..., at] * sign[at], candidate[..., at] * sign[at], float(risks[at[0]]), least
        )
    single = Falls(fall, margin, deviation)
    return single, _compare_together(accepted * sign, candidate * sign, deviation, columns, primary, level)


def _compare_together(
    accepted: np.ndarray,
    candidate: np.ndarray,
    deviation: np.ndarray,
    columns: Sequence[Column],
    primary: str,
    level: float,
) -> Falls | None:
    """Return the falls of all comparisons together; None if there is only one. Of all values, larger is better."""
    risk = share_risk(columns, primary, 1 - level)[1]
    if not risk:
        return None
    smallest = np.array([column.smallest for column in columns])
    before, after, least = together(accepted, candidate, deviation, smallest)
    return compare(before, after, risk, least)


def find_power(
    accepted: np.ndarray, candidates: int, columns: Sequence[Column], primary: str, level: float, falls: Sequence[float]
) -> Power:
    """Return what the gate would see of candidates with `candidates` other seeds. accepted: S x K.

    falls: points by which the primary metric of every run falls, for `Power.caught`.
    """
    before, after = simulate(accepted, candidates)
    single, _ = compare_all(before, after, columns, primary, level)
    first = np.array([column.metric == primary for column in columns])
    sign = np.array([column.sign for column in columns])

    def share_failing(worse: float) -> float:
        """The margins of the single comparisons do not depend on a candidate with other seeds: only falls change."""
        fallen = single._replace(fall=single.fall + worse * first)
        values = before * sign, after * sign - worse * first
        return float(failing(fallen, _compare_together(*values, single.deviation, columns, primary, level)).mean())

    return Power(
        np.array([smallest_fall(single.fall[:, k], single.margin[:, k]) for k in range(len(columns))]),
        share_failing(0.0),
        {worse: share_failing(worse) for worse in falls},
    )


def failing(single: Falls, all_together: Falls | None) -> np.ndarray:
    """Return which replicates fail by any comparison, bool, without the last axis of the falls."""
    failed = (single.fall > single.margin).any(axis=-1)
    if all_together is None:
        return np.asarray(failed)
    return np.asarray(failed | (all_together.fall > all_together.margin).any(axis=-1))
