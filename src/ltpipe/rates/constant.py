"""The learning rate stays as it is after the warm-up."""

from ltpipe.rates import Rate


class Config(Rate):
    """No options."""

    def factor(self, at: int, of: int, epoch: int) -> float:
        return 1.0
