"""ResNet-32 for CIFAR (He et al., CVPR 2016, section 4.2): 3 x 3 stem, 3 stages of 5 basic blocks, 64 features.

Shortcuts of option A (strided subsampling, zero-padded channels: no parameters) and Kaiming initialisation, as in the
LDAM recipe (Cao et al., NeurIPS 2019). 0.46 M parameters and 68.9 M multiply-adds with a 100-class linear head.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from ltpipe.config.spec import Spec

if TYPE_CHECKING:
    from torch import nn


class Config(Spec):
    """Size of CIFAR's ResNet."""

    width: int = Field(
        16, gt=0, description="channels of the first stage, 16 in the paper; the other two have 2 and 4 times as many"
    )
    depth: int = Field(32, description="layers with weights, 6n + 2 for n blocks in each stage")


def build(
    config: Config, branches: int, narrow: float = 1.0, private: str = "stages", image: int | None = None
) -> "nn.Module":
    """Return the network: images B x 3 x H x W -> features B x D, or B x branches x D if branches > 1.

    D is 4 * width. If branches > 1, the last two stages keep the share `narrow` of their channels, and so does D
    (RIDE's experts: 16 / 24 / 48 channels, D 48).
    Raises ValueError if depth is not 6n + 2.
    """
    from ltpipe.layers.branches import branched
    from ltpipe.layers.padded_blocks import cifar_stem, padded_stage

    blocks = (config.depth - 2) // 6
    if 6 * blocks + 2 != config.depth:
        raise ValueError(f"resnet32: depth must be 6n + 2, not {config.depth}")
    first = config.width
    second, third = (int(number * (narrow if branches > 1 else 1)) for number in (2 * first, 4 * first))
    stages: list[Callable[[], list[nn.Module]]] = [
        lambda: [cifar_stem(first)],
        partial(padded_stage, first, first, blocks, 1),
        partial(padded_stage, first, second, blocks, 2),
        partial(padded_stage, second, third, blocks, 2),
    ]
    return branched(stages, branches, private, features=third)
