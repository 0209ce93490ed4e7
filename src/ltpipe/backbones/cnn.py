"""A small CNN of three blocks (convolution, batch norm, ReLU, 2 x 2 max pooling) for images of 16 to 32 pixels."""

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import Field

from ltpipe.config.spec import Spec

if TYPE_CHECKING:
    from torch import nn


class Config(Spec):
    """Width of the small CNN."""

    width: int = Field(16, gt=0, description="channels of the first block; each further block has twice as many")


def build(
    config: Config, branches: int, narrow: float = 1.0, private: str = "stages", image: int | None = None
) -> "nn.Module":
    """Return the network: images B x 3 x H x W -> features B x 4*width, or B x branches x 4*width if branches > 1.

    Each block is a stage. They are too small to be narrowed, so `narrow` has no effect.
    """
    from torch import nn

    from ltpipe.layers.branches import branched

    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))]

    channels = (3, config.width, 2 * config.width, 4 * config.width)
    stages = [partial(stage, *pair) for pair in pairwise(channels)]
    return branched(stages, branches, private, features=channels[-1])
