"""ResNet-32 for CIFAR (He et al., CVPR 2016, section 4.2): 3 x 3 stem, 3 stages of 5 basic blocks, 64 features.

Shortcuts of option A (strided subsampling, zero-padded channels: no parameters) and Kaiming initialisation, as in the
LDAM recipe (Cao et al., NeurIPS 2019). 0.46 M parameters and 68.9 M multiply-adds with a 100-class linear head.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from ltpipe.config.spec import Spec

if TYPE_CHECKING:
    from torch import nn


class Config(Spec):
    """Channels of the first stage (16 in the paper; RIDE's experts keep 16 / 24 / 48)."""

    width: int = Field(16, gt=0)
    depth: int = Field(32, description="6n + 2 layers")


def build(config: Config, branches: int, narrow: float = 1.0) -> "nn.Module":
    """images B x 3 x H x W -> features B x 4*width, or B x branches x D; stem and first stage are shared.

    With branches, the private stages keep `narrow` of their channels.
    """
    from torch import nn

    from ltpipe.layers.branches import Branches
    from ltpipe.layers.padded_blocks import stage, stem

    blocks = (config.depth - 2) // 6
    if 6 * blocks + 2 != config.depth:
        raise ValueError(f"resnet32: depth must be 6n + 2, not {config.depth}")
    first = config.width
    second, third = (int(number * (narrow if branches > 1 else 1)) for number in (2 * first, 4 * first))

    def rest() -> nn.Module:
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(stage(first, second, blocks, 2), stage(second, third, blocks, 2), pool)

    trunk = nn.Sequential(stem(first), stage(first, first, blocks, 1))
    return Branches(trunk, [rest() for _ in range(branches)], features=third)
