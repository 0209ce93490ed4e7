"""Classifiers: features B x D -> logits B x C; with experts B x E x D -> B x E x C."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Cosine(nn.Module):
    """scale * cos(feature, class weight), no bias (LDAM and RIDE; scale 30 in both).

    The product is computed on normalised vectors in the features' own precision.
    """

    def __init__(self, features: int, classes: int, scale: float = 30.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features).uniform_(-1, 1))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=-1))


class PerExpert(nn.Module):
    """One head for each expert: B x E x D -> B x E x C."""

    def __init__(self, heads: list[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([head(features[:, e]) for e, head in enumerate(self.heads)], dim=1)
