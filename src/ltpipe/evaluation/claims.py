"""What papers claim of the order of methods, held against what was measured, with its standard error."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from ltpipe.specs import Spec


class Claim(Spec):
    """`better` beats `than` on the metric path `metric`, says `source`."""

    better: str
    than: str
    metric: str
    source: str


class Claims(Spec):
    """The claims that a benchmark's report holds against its measurements."""

    claims: list[Claim] = Field(default_factory=list)


def hold(claims: Claims, summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a claim: difference of the means over the seeds that both runs have, its standard error, the verdict.

    Differences are paired by seed (equal seeds share data order and, where the networks agree, initial weights). With
    n pairs the standard error is std / sqrt(n); within two of them the verdict is `inconclusive`.
    """
    by_run = {summary["run"]: summary for summary in summaries}
    return [_one(claim, by_run) for claim in claims.claims]


def _one(claim: Claim, by_run: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = claim.model_dump()
    values = [_by_seed(by_run.get(run), claim.metric) for run in (claim.better, claim.than)]
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


def _by_seed(summary: Mapping[str, Any] | None, metric: str) -> dict[int, float]:
    if summary is None or metric not in summary["metrics"]:
        return {}
    return dict(zip(summary["seeds"], summary["metrics"][metric]["values"], strict=True))
