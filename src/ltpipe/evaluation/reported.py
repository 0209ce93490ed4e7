"""Reported numbers: what a paper says of a run, and the verdict on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Spec
from ltpipe.evaluation.metrics import MetricPath


class Reported(Spec):
    """A number from a paper, or the reason why there is none.

    Noise does not widen the tolerance: if two standard errors of the mean exceed it, the verdict is `inconclusive`,
    and a number that gates fails the gate unless its verdict is `pass`.
    """

    label: str | None = Field(None, description="the paper's name of the run; the run's key stays snake_case")
    value: float | None = Field(None, ge=0, le=100, description="the reported number, in percent")
    metric: MetricPath | None = Field(None, description="metric path of the number, e.g. clt.accuracy.all")
    tolerance: float | None = Field(
        None, gt=0, description="largest distance from the number that passes, above or below, in percentage points"
    )
    source: str | None = Field(None, description="paper and table of the number")
    gates: bool = Field(False, description="the gate fails unless the measured mean is within the tolerance")
    why: str | None = Field(None, description="why there is no value, or why it does not gate")

    @model_validator(mode="after")
    def _check_complete(self) -> "Reported":
        if self.value is not None and not (self.metric and self.tolerance and self.source):
            raise ValueError("a reported value needs metric, tolerance and source")
        if self.value is not None and not self.gates and not self.why:
            raise ValueError("a number that does not gate needs a reason: why")
        if self.gates and self.value is None:
            raise ValueError("gates: true needs a value")
        return self


class SharedReported(Spec):
    """Defaults for the `reported` blocks of all runs."""

    metric: MetricPath | None = Field(None, description="metric path of the reported values")
    tolerance: float | None = Field(None, gt=0, description="tolerance of the reported values, in percentage points")
    why: str | None = Field(None, description="why there is no value, for runs that have none")

    def fill(self, reported: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run's `reported` block with these defaults filled in."""
        shared = self.model_dump(exclude_none=True)
        # `why` explains a missing value; the other two describe a value
        taken = ("why",) if reported.get("value") is None else ("metric", "tolerance")
        return {key: value for key, value in shared.items() if key in taken} | dict(reported)


def compare_with_reported(reported: Reported, table: Mapping[str, Mapping[str, Any]], n: int) -> dict[str, Any]:
    """Return the block with a verdict: pass, below, above, inconclusive, incomparable or unreported.

    table: metric path -> mean and std over n seeds. A mean above the tolerance does not pass either: a leak of test
    images into training looks like success.
    """
    result: dict[str, Any] = reported.model_dump()
    if reported.value is None or reported.tolerance is None or reported.metric is None:
        return result | {"verdict": "unreported"}
    if reported.metric not in table:
        return result | {"verdict": "incomparable", "reason": f"no metric {reported.metric}"}
    measured = table[reported.metric]
    delta = measured["mean"] - reported.value
    if not np.isfinite(delta):
        return result | {"verdict": "incomparable", "reason": f"{reported.metric} is {measured['mean']}"}
    # one seed has no standard error, so it never confirms a number
    error = 2 * measured["std"] / np.sqrt(n) if measured["std"] is not None else np.inf
    if error > reported.tolerance:
        said = f"two standard errors are {error:.2f}" if np.isfinite(error) else "one seed has no standard error"
        reason = f"measured {measured['mean']:.2f}; {said}, the tolerance is {reported.tolerance:g}: more seeds"
        return result | {"delta": delta, "verdict": "inconclusive", "reason": reason}
    verdict = "below" if delta < -reported.tolerance else "above" if delta > reported.tolerance else "pass"
    return result | {"delta": delta, "verdict": verdict}
