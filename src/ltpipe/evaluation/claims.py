"""Compare what papers claim about the order of methods with the measured differences and their standard errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field, RootModel

from ltpipe.config.spec import Spec
from ltpipe.evaluation.metrics import MetricPath


class Claim(Spec):
    """A paper's claim that one run is better than another."""

    better: str = Field(description="run that is claimed to be better")
    than: str = Field(description="run that it is compared with")
    metric: MetricPath = Field(description="metric path that is compared, e.g. glt.accuracy.all")
    source: str = Field(description="paper and table that the claim is from")
    recipes: str | None = Field(
        None,
        description="how the training of the two runs differs; needed where network, schedule or augmentation do",
    )


class Claims(RootModel[tuple[Claim, ...]]):
    """Claims that the report compares with the measurements. They never fail the gate."""

    root: tuple[Claim, ...] = ()


def check_claims(claims: Claims, summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each claim the mean difference over the seeds of both runs, its standard error, and a verdict.

    Differences are paired by seed (equal seeds share the order of images and, if the networks agree, initial weights).
    With n pairs the standard error is std / sqrt(n); a difference within two of them is `inconclusive`.
    """
    by_run = {summary["run"]: summary for summary in summaries}
    return [_check_claim(claim, by_run) for claim in claims.root]


def _check_claim(claim: Claim, by_run: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = claim.model_dump()
    better, than = (_values_by_seed(by_run.get(run), claim.metric) for run in (claim.better, claim.than))
    shared = sorted(set(better) & set(than))
    if not shared:
        return row | {"n": 0, "difference": None, "error": None, "verdict": "not measured"}
    pairs = np.array([better[seed] - than[seed] for seed in shared])
    difference = float(pairs.mean())
    if len(pairs) < 2:  # one pair has no standard error, however large its difference is
        return row | {"n": 1, "difference": difference, "error": None, "verdict": "inconclusive"}
    error = float(pairs.std(ddof=1) / np.sqrt(len(pairs)))
    verdict = "inconclusive" if abs(difference) <= 2 * error else "holds" if difference > 0 else "does not hold"
    return row | {"n": len(pairs), "difference": difference, "error": error, "verdict": verdict}


def _values_by_seed(summary: Mapping[str, Any] | None, metric: str) -> dict[int, float]:
    """Return seed -> value of the metric; empty if the run or the metric was not measured."""
    if summary is None or metric not in summary["metrics"]:
        return {}
    return dict(zip(summary["seeds"], summary["metrics"][metric]["values"], strict=True))
