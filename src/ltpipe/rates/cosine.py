"""Half a cosine from lr to `floor` * lr, without restarts (Loshchilov and Hutter, ICLR 2017)."""

import math

from pydantic import Field

from ltpipe.rates import Rate


class Config(Rate):
    """Where the cosine ends."""

    floor: float = Field(0.0, ge=0, lt=1, description="share of lr towards which it falls")

    def factor(self, at: int, of: int, epoch: int) -> float:
        return cosine(at, of, self.floor)


def cosine(at: int, of: int, floor: float) -> float:
    """Return floor + (1 - floor) (1 + cos(pi at / of)) / 2: 1 at position 0, `floor` at position `of`."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * at / of)) / 2
