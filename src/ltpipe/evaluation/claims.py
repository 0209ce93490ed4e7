"""What papers claim of the order of methods, compared with the measurements and their standard error."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import RootModel

from ltpipe.config.spec import Spec


class Claim(Spec):
    """`better` beats `than` on the metric path `metric`, according to `source`."""

    better: str
    than: str
    metric: str
    source: str


class Claims(RootModel[tuple[Claim, ...]]):
    """The claims that a benchmark's report compares with its measurements. They gate nothing."""

    root: tuple[Claim, ...] = ()


def check_claims(claims: Claims, summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each claim the difference of means over the seeds of both runs, its standard error, and a verdict.

    Differences are paired by seed (equal seeds share the order of images and, if the networks agree, initial weights).
    With n pairs the standard error is std / sqrt(n); within two of them the verdict is `inconclusive`.
    """
    by_run = {summary["run"]: summary for summary in summaries}
    return [_check_claim(claim, by_run) for claim in claims.root]


def _check_claim(claim: Claim, by_run: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = claim.model_dump()
    values = [_value_by_seed(by_run.get(run), claim.metric) for run in (claim.better, claim.than)]
    shared = sorted(set(values[0]) & set(values[1]))
    if not shared:
        return row | {"n": 0, "difference": None, "error": None, "verdict": "not measured"}
    pairs = np.array([values[0][seed] - values[1][seed] for seed in shared])
    difference = float(pairs.mean())
    if len(pairs) < 2:
        return row | {"n": 1, "difference": difference, "error": None, "verdict": "inconclusive"}
    error = float(pairs.std(ddof=1) / np.sqrt(len(pairs)))
    verdict = "inconclusive" if abs(difference) <= 2 * error else "holds" if difference > 0 else "does not hold"
    return row | {"n": len(pairs), "difference": difference, "error": error, "verdict": verdict}


def _value_by_seed(summary: Mapping[str, Any] | None, metric: str) -> dict[int, float]:
    if summary is None or metric not in summary["metrics"]:
        return {}
    return dict(zip(summary["seeds"], summary["metrics"][metric]["values"], strict=True))
