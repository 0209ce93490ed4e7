"""Factors of lr, each from an epoch on. Written as a mapping: `decay: {160: 0.01, 180: 0.0001}`."""

from collections.abc import Mapping

from pydantic import Field

from ltpipe.rates import Rate


class Config(Rate):
    """The factors; `decay` itself is this mapping."""

    factors: dict[int, float] = Field(min_length=1, description="epoch (from 0) -> factor of lr from there on")

    def factor(self, at: int, of: int, epoch: int) -> float:
        return at_epoch(self.factors, at // epoch)


def at_epoch(factors: Mapping[int, float], epoch: int) -> float:
    """Return the factor of the last boundary that is not after `epoch`; 1 before the first one."""
    passed = [boundary for boundary in factors if boundary <= epoch]
    return factors[max(passed)] if passed else 1.0
