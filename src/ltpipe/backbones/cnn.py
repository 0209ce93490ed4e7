"""A small CNN of three blocks (convolution, batch norm, ReLU, 2 x 2 max pooling) for images of 16 to 32 pixels."""

from typing import TYPE_CHECKING

from pydantic import Field

from ltpipe.config.spec import Spec

if TYPE_CHECKING:
    from torch import nn


class Config(Spec):
    """Channels of the first block; each further block has twice as many."""

    width: int = Field(16, gt=0)


def build(config: Config, branches: int, narrow: float = 1.0) -> "nn.Module":
    """images B x 3 x H x W -> features B x 4*width, or B x branches x 4*width where branches > 1.

    The first block is shared; the other two are private to each branch, and too small to be narrowed.
    """
    from torch import nn

    from ltpipe.layers.branches import Branches

    def block(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)
        )

    def rest() -> nn.Module:
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(block(config.width, 2 * config.width), block(2 * config.width, 4 * config.width), pool)

    return Branches(block(3, config.width), [rest() for _ in range(branches)], features=4 * config.width)
