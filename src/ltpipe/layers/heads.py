"""Classifiers: features B x D -> logits B x C; with experts, B x E x D -> B x E x C."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def unit_vectors(uniform: Tensor) -> Tensor:
    """Return class vectors scaled to norm 1, C x D. uniform: the values drawn, C x D."""
    return F.normalize(uniform, dim=1)


class Cosine(nn.Module):
    """scale * cos(feature, class weight), without a bias (LDAM and RIDE, both with scale 30).

    The vectors are normalised first, then multiplied, both in the precision of the features. The weights start at norm
    1, as in the authors' code: a step of SGD turns a vector of norm r by 1 / r^2 as much, and without this scaling r is
    sqrt(D / 3), 26 for 2,048 features.
    Its parameter is not called `weight`: a linear head without bias would otherwise take it from a checkpoint, without
    scale and normalisation, and nobody would notice.
    """

    def __init__(self, features: int, classes: int, scale: float = 30.0) -> None:
        super().__init__()
        self.directions = nn.Parameter(unit_vectors(torch.empty(classes, features).uniform_(-1, 1)))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features, dim=-1), F.normalize(self.directions, dim=-1))


class PerExpert(nn.Module):
    """A head for each expert: B x E x D -> B x E x C."""

    def __init__(self, heads: list[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([head(features[:, e]) for e, head in enumerate(self.heads)], dim=1)


class MultiHead(nn.Module):
    """Logits of K parts of the features: B x D -> B x K x C, without a bias.

    The logits of part k are scale * W_k . z_k / ((||W_k|| + floor) ||z_k||); their mean over k is the network's logit
    (Tang et al., NeurIPS 2020). Features of zeros give logits of 0.
    """

    def __init__(self, features: int, classes: int, heads: int, scale: float, floor: float) -> None:
        super().__init__()
        if features % heads:
            raise ValueError(f"{features} features cannot be divided into {heads} equal heads")
        bound = features**-0.5
        self.weight = nn.Parameter(torch.empty(heads, classes, features // heads).uniform_(-bound, bound))
        self.scale, self.floor = scale, floor

    def forward(self, features: Tensor) -> Tensor:
        parts = F.normalize(features.unflatten(1, (len(self.weight), -1)), dim=2)
        weight = self.weight / (self.weight.norm(dim=2, keepdim=True) + self.floor)
        return self.scale * torch.einsum("bkd,kcd->bkc", parts, weight)
