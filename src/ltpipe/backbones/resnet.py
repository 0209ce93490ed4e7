"""ResNet and ResNeXt of ImageNet (He et al., CVPR 2016; Xie et al., CVPR 2017), trained from random weights.

With a linear head of 1,000 classes: ResNet-18 11.69 M parameters, ResNet-50 25.56 M, ResNet-152 60.19 M; ResNeXt-50
32x4d 25.03 M (depth 50, cardinality 32, group 4). The stride is that of the 3 x 3 convolution, as in torchvision.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from ltpipe.config.spec import Spec

if TYPE_CHECKING:
    from torch import nn

# Depth -> blocks of each of the four stages. From 50 layers on, the blocks are bottlenecks.
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Config(Spec):
    """Size of the ResNet or ResNeXt. Without bottlenecks (depth < 50), cardinality and group cannot be changed."""

    depth: Literal[18, 34, 50, 101, 152] = Field(50, description="layers with weights")
    stem: Literal["small", "large"] = Field(
        "large",
        description="first layers: large (7 x 7, pooling) for images of 112 pixels and more, "
        "small (3 x 3, no pooling) for 64 and less",
    )
    width: int = Field(64, gt=0, description="planes of the first stage; each further stage has twice as many")
    cardinality: int = Field(1, gt=0, description="groups of each 3 x 3 convolution; ResNeXt has 32")
    group: int = Field(
        64, gt=0, description="channels of each group in the first stage, if width is 64; ResNeXt-50 32x4d has 4"
    )

    @model_validator(mode="after")
    def _can_be_built(self) -> "Config":
        if self.depth < 50 and (self.cardinality, self.group) != (1, 64):
            raise ValueError(f"depth {self.depth} has no bottlenecks: cardinality and group need depth 50 or more")
        if self.width * self.group % 64 or self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4, and width * group of 64")
        return self


def build(
    config: Config, branches: int, narrow: float = 1.0, private: str = "stages", image: int | None = None
) -> "nn.Module":
    """Return the network: images B x 3 x H x W -> features B x D, or B x branches x D if branches > 1.

    D is 8 * width (depth 18, 34) or 32 * width. If branches > 1, the last two stages keep the share `narrow` of their
    planes, and D shrinks with them.
    """
    from ltpipe.layers.branches import branched
    from ltpipe.layers.projection_blocks import imagenet_stem

    planes = [config.width * factor for factor in (1, 2, 4, 8)]
    if branches > 1:
        planes[2:] = [int(number * narrow) for number in planes[2:]]
    expansion = _expansion(config)
    inputs = [config.width, *(expansion * width for width in planes)]
    # the first stage keeps the resolution of the stem
    stages: list[Callable[[], list[nn.Module]]] = [
        partial(_stage, config, inputs[i], planes[i], BLOCKS[config.depth][i], 2 if i else 1)
        for i in range(len(planes))
    ]
    stages.insert(0, lambda: [imagenet_stem(config.width, config.stem == "large")])
    return branched(stages, branches, private, features=inputs[-1])


def _expansion(config: Config) -> int:
    """Return outputs of a block / its planes."""
    return 4 if config.depth >= 50 else 1


def _stage(config: Config, inputs: int, planes: int, blocks: int, stride: int) -> "list[nn.Module]":
    """Return the stage's blocks; only the first has `stride`."""
    from ltpipe.layers.projection_blocks import basic_block, bottleneck_block

    outputs = _expansion(config) * planes
    sizes = [(inputs, planes, stride), *[(outputs, planes, 1)] * (blocks - 1)]
    if config.depth < 50:
        return [basic_block(*size) for size in sizes]
    return [bottleneck_block(*size, config.cardinality, config.group) for size in sizes]
