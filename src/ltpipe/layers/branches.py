"""A shared trunk and one or more private branches: single networks, multi-expert networks and BBN's two branches."""

import torch
from torch import Tensor, nn


class Branches(nn.Module):
    """images B x 3 x H x W -> features B x D with one branch, B x E x D with E branches.

    With `partition_batch`, while training, branch e sees only the e-th part of the batch, and so do its batch-norm
    statistics: features B/E x E x D.
    """

    def __init__(self, trunk: nn.Module, branches: list[nn.Module], features: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.branches = nn.ModuleList(branches)
        self.features = features
        self.partition_batch = False

    def forward(self, images: Tensor) -> Tensor:
        shared = self.trunk(images)
        count = len(self.branches)
        parts = shared.chunk(count) if self.partition_batch and self.training else [shared] * count
        each = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        return each[0] if len(each) == 1 else torch.stack(each, dim=1)
