"""A shared trunk with private branches: one for a plain network, several for experts and for BBN's two branches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Branches(nn.Module):
    """Map images B x 3 x H x W to features: B x D with one branch, B x E x D with E branches.

    With `partition_batch`, while training, the e-th part of the batch passes through the trunk and branch e alone, so
    that batch-norm statistics are those of one part; features are then B/E x E x D.
    """

    def __init__(self, trunk: nn.Module, branches: list[nn.Module], features: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.branches = nn.ModuleList(branches)
        self.features = features
        self.partition_batch = False  # the training loop sets it, if the method needs it

    def forward(self, images: Tensor) -> Tensor:
        count = len(self.branches)
        if self.partition_batch and self.training:
            parts = [self.trunk(part) for part in images.chunk(count)]
        else:
            parts = [self.trunk(images)] * count
        features = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        return features[0] if count == 1 else torch.stack(features, dim=1)

    def layers(self) -> list[list[nn.Module]]:
        """Return the layers with parameters in their order from the image on; branches lie side by side."""
        blocks = [[block] for block in self.trunk.children()]
        blocks += [list(level) for level in zip(*(branch.children() for branch in self.branches), strict=True)]
        return [level for level in blocks if any(list(block.parameters()) for block in level)]


def branched(stages: Sequence[Callable[[], list[nn.Module]]], branches: int, private: str, features: int) -> Branches:
    """Return a network whose first blocks are shared and whose last ones exist once for each branch.

    stages: functions that make the blocks of a stage, in order; the stem is the first stage. private: "stages", the
    last two stages; "block", the last block; "all", everything. features: D, channels after the last block, which are
    averaged over the image.
    """

    def blocks(part: Sequence[Callable[[], list[nn.Module]]]) -> list[nn.Module]:
        return [block for stage in part for block in stage()]

    def branch() -> nn.Module:
        own = blocks(stages[-1:])[-1:] if private == "block" else blocks(stages[cut:])
        return nn.Sequential(*own, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    cut = {"stages": len(stages) - 2, "block": len(stages), "all": 0}[private]
    shared = blocks(stages[:cut])
    trunk = nn.Sequential(*(shared[:-1] if private == "block" else shared))
    return Branches(trunk, [branch() for _ in range(branches)], features)
