"""A shared trunk and one or more private branches: single networks, multi-expert networks and BBN's two branches."""

import torch
from torch import Tensor, nn


class Branches(nn.Module):
    """images B x 3 x H x W -> features B x D with one branch, B x E x D with E branches."""

    def __init__(self, trunk: nn.Module, branches: list[nn.Module], features: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.branches = nn.ModuleList(branches)
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        shared = self.trunk(images)
        each = [branch(shared) for branch in self.branches]
        return each[0] if len(each) == 1 else torch.stack(each, dim=1)
