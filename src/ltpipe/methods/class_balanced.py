"""Class-balanced loss (Cui et al., CVPR 2019): cross-entropy weighted by the inverse effective number of images.

An image of a rare class gets a larger weight in the loss than an image of a frequent class. beta sets how much: 0 gives
every class the same weight, 1 gives 1 / n_c. `start` can defer the weights to the last epochs; this is DRW (deferred
re-weighting, Cao et al., NeurIPS 2019) without its margins.

Formula:
    w_c  = (1 - beta) / (1 - beta^n_c), then scaled so that they sum to the number of classes with images
    loss = sum_b w_yb CE(s_b, y_b) / sum_b w_yb       prediction: argmax_c s_c

Use:
    class_balanced: {}
    class_balanced_deferred: {start: 0.8}

Suggested values:
* CIFAR-10-LT and CIFAR-100-LT: beta 0.9999 (code of Cao et al., 2019); deferred from epoch 160 of 200: `start: 0.8`.
* Tiny ImageNet-LT, deferred: from epoch 90 of 120 (Cao et al., 2019, appendix C.2): `start: 0.75`.

Where the authors' code differs: the authors' own code was not compared. The weighted mean over the batch is that of the
code of Cao et al., 2019.

Attribution: Cui et al., CVPR 2019. The code here is written from the formula; the default of beta is that of
kaidic/LDAM-DRW (MIT licence).
"""

from typing import TYPE_CHECKING

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import When
from ltpipe.interface.streams import Batch
from ltpipe.mathematics.losses import adjusted_loss, class_balanced_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output


class Config(Spec):
    """Strength and start of the weights."""

    beta: float = Field(0.9999, ge=0, le=1, description="0: equal weights; 1: weights 1 / n_c")
    start: When = Field(0, description="when the weights begin")


class Method(method.Method):
    """Keep the weights as a buffer, C."""

    def build(self, features: int) -> "nn.Module":
        return method.buffers(weight=class_balanced_weights(self.problem.counts, self.config.beta))

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        weight = self.own.weight if self.clock.passed(self.config.start) else None
        return {"loss": adjusted_loss(out.logits, batch.labels, weight=weight)}
