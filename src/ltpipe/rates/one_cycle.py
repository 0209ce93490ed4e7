"""One cycle: lr rises to its full value and then falls almost to 0 (Smith and Topin, 2018).

Both parts are half cosines, as in torch's OneCycleLR. The momentum stays as it is.
"""

import math
from typing import ClassVar

from pydantic import Field

from ltpipe.rates import Rate


class Config(Rate):
    """Where the cycle begins, turns and ends. The defaults are those of torch's OneCycleLR."""

    own_warmup: ClassVar[bool] = True
    by_step: ClassVar[bool] = True

    rise: float = Field(0.3, gt=0, lt=1, description="share of training in which lr rises")
    start: float = Field(0.04, gt=0, le=1, description="factor of lr at the first position")
    end: float = Field(4e-6, ge=0, le=1, description="factor of lr at the last position")

    def factor(self, at: int, of: int, epoch: int) -> float:
        return one_cycle(at, of, self.rise, self.start, self.end)


def one_cycle(at: int, of: int, rise: float, start: float, end: float) -> float:
    """Return the factor at position `at` of `of`: `start` at 0, 1 at the peak rise * of - 1, `end` at of - 1.

    If the peak is before position 0, the cycle is falling from the beginning.
    """
    peak, last = rise * of - 1, of - 1
    if peak > 0 and at <= peak:
        return between(start, 1.0, at / peak)
    return between(1.0, end, (at - peak) / (last - peak))


def between(first: float, second: float, share: float) -> float:
    """Return the value at `share` (0..1) of half a cosine from `first` to `second`."""
    return second + (first - second) * (1 + math.cos(math.pi * share)) / 2
