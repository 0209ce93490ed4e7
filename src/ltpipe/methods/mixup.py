"""Mixup (Zhang et al., ICLR 2018): train on weighted means of two images, and of their losses.

Every image of a batch is blended with another one of the same batch. The loss is the same blend of the losses of both
labels. All images of a batch share one random weight.

Formula:
    l    ~ Beta(alpha, alpha)                         once per batch
    x'_b = l x_b + (1 - l) x_j                        j: the image at position b of a random permutation of the batch
    loss = mean_b l CE(s(x'_b), y_b) + (1 - l) CE(s(x'_b), y_j)            prediction: argmax_c s_c

Use:
    mixup: {alpha: 1.0}

Suggested values: the defaults; alpha 1 is also the value in the code of Tang et al., 2022 (ImageNet-GLT, MSCOCO-GLT).

Where the authors' code differs: the authors' own code was not compared; no difference from the code of Tang et al.,
2022 is known.

Attribution: Zhang et al., ICLR 2018. The code here is written from the formula.
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
    """Distribution of the mixing weight."""

    alpha: float = Field(1.0, gt=0, description="both parameters of the Beta distribution; 1 is uniform in 0..1")


class Method(method.Method):
    """Mix images before the forward pass.

    The global CPU generator draws weight and partners: every resume point holds its state.
    """

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        import torch

        batch = super().batch(streams)
        share = float(torch.distributions.Beta(self.config.alpha, self.config.alpha).sample())
        partner = torch.randperm(len(batch.labels)).to(batch.labels.device)
        images = share * batch.images + (1 - share) * batch.images[partner]
        return Batch(images, batch.labels, batch.index, batch.labels[partner], share)

    def smooths(self) -> bool:
        return True  # both labels are smoothed

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        assert batch.other is not None
        smoothing = self.problem.label_smoothing
        return {"loss": mixed_loss(out.logits, batch.labels, batch.other, batch.share, smoothing)}
