"""A straight line from lr to `floor` * lr."""

from pydantic import Field

from ltpipe.rates import Rate


class Config(Rate):
    """Where the line ends."""

    floor: float = Field(0.0, ge=0, lt=1, description="share of lr towards which it falls")

    def factor(self, at: int, of: int, epoch: int) -> float:
        return linear(at, of, self.floor)


def linear(at: int, of: int, floor: float) -> float:
    """Return 1 - (1 - floor) at / of: 1 at position 0, `floor` at position `of`."""
    return 1 - (1 - floor) * at / of
