"""Mixup (Zhang et al., ICLR 2018): convex combinations of pairs of images, and of their losses.

x' = l x + (1 - l) x_perm, l ~ Beta(alpha, alpha) once a batch; loss = l CE(y) + (1 - l) CE(y_perm)
"""

from typing import TYPE_CHECKING

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.streams import Batch
from ltpipe.mathematics.losses import mixed_loss

if TYPE_CHECKING:
    from torch import Tensor

    from ltpipe.models.network import Output


class Config(Spec):
    """alpha: of the Beta distribution; 1 is uniform."""

    alpha: float = Field(1.0, gt=0)


class Method(method.Method):
    """Mixes before the forward pass. The global CPU generator draws: it is part of every resume point."""

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        import torch

        batch = super().batch(streams)
        share = float(torch.distributions.Beta(self.config.alpha, self.config.alpha).sample())
        partner = torch.randperm(len(batch.labels)).to(batch.labels.device)
        images = share * batch.images + (1 - share) * batch.images[partner]
        return Batch(images, batch.labels, batch.index, batch.labels[partner], share)

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        assert batch.other is not None
        return {"loss": mixed_loss(out.logits, batch.labels, batch.other, batch.share)}
