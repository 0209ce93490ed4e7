"""A shared trunk with private branches: one for a plain network, several for experts and for BBN's two branches."""

import torch
from torch import Tensor, nn


class Branches(nn.Module):
    """Map images B x 3 x H x W to features: B x D with one branch, B x E x D with E branches.

    With `partition_batch`, while training, branch e sees only the e-th part of the batch, and so do its batch-norm
    statistics; features are then B/E x E x D.
    """

    def __init__(self, trunk: nn.Module, branches: list[nn.Module], features: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.branches = nn.ModuleList(branches)
        self.features = features
        self.partition_batch = False  # the training loop sets it, if the method needs it

    def forward(self, images: Tensor) -> Tensor:
        shared = self.trunk(images)
        count = len(self.branches)
        parts = shared.chunk(count) if self.partition_batch and self.training else [shared] * count
        features = [branch(part) for branch, part in zip(self.branches, parts, strict=True)]
        return features[0] if count == 1 else torch.stack(features, dim=1)
