"""Bilateral-branch network (Zhou et al., CVPR 2020): one branch for images as they come, one for mostly rare classes.

    l = 1 - (epoch / epochs)^2;  s = 2 (l W_1 z_1 + (1 - l) W_2 z_2);  loss = l CE(s, y_1) + (1 - l) CE(s, y_2)

z_1 is of an image of the uniform stream, z_2 of one of the reversed stream (class probability in proportion to
n_max / n_c), each through its own branch on a shared trunk; both streams have N images, an epoch 2 N. At test l = 1/2,
hence s = W_1 z_1 + W_2 z_2. No bias.

Where the authors' code differs: that of Tang et al., 2022 has epoch - 1 (from 0) in place of epoch.
"""

from typing import TYPE_CHECKING

import numpy as np

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.streams import Batch, Stream
from ltpipe.mathematics.losses import mixed_loss

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output


class Config(Spec):
    """No options."""


def reversed_weights(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sampling weights of images under which class c has probability (1/n_c) / sum_j (1/n_j); N, float64, sum 1."""
    weights = 1.0 / counts[labels].astype(np.float64) ** 2
    return np.asarray(weights / weights.sum())


class Method(method.Method):
    """Two whole streams, one a branch."""

    def needs(self) -> method.Needs:
        return method.Needs(branches=2, partition_batch=True)

    def head(self, features: int) -> "nn.Module":
        from torch import nn

        from ltpipe.layers.heads import PerExpert

        return PerExpert([nn.Linear(features, self.problem.classes, bias=False) for _ in range(2)])

    def streams(self) -> tuple[Stream, ...]:
        import torch

        weights = torch.from_numpy(reversed_weights(self.problem.labels, self.problem.counts))
        return (Stream(own_batch=True), Stream(weights=weights, own_batch=True))

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        """Pairs: images of both streams, one after the other; labels of the first, `other` of the second."""
        import torch

        first, second = streams
        share = 1 - (self.clock.epoch / self.clock.epochs) ** 2
        return Batch(torch.cat([first.images, second.images]), first.labels, first.index, second.labels, share)

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        assert out.experts is not None and batch.other is not None
        logits = 2 * (batch.share * out.experts[:, 0] + (1 - batch.share) * out.experts[:, 1])
        return {"loss": mixed_loss(logits, batch.labels, batch.other, batch.share)}

    def predict(self, out: "Output") -> "Tensor":
        assert out.experts is not None
        return out.experts.sum(dim=1)
