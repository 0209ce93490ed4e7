"""Class-balanced loss (Cui et al., CVPR 2019): cross-entropy weighted by the inverse effective number of images.

    w_c = (1 - beta) / (1 - beta^n_c), scaled to sum to C; loss = sum_b w_yb l_b / sum_b w_yb

The mean is over the batch's weights, as in the code of Cao et al., 2019. `start: 0.8` defers the weights to the last
fifth of the epochs (DRW without margins).
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
    """beta: 0 is no weighting, 1 is 1 / n_c. start: when the weights begin."""

    beta: float = Field(0.9999, ge=0, le=1)
    start: When = 0


class Method(method.Method):
    """The weights as a buffer."""

    def build(self, features: int) -> "nn.Module":
        return method.buffers(weight=class_balanced_weights(self.problem.counts, self.config.beta))

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        weight = self.own.weight if self.clock.passed(self.config.start) else None
        return {"loss": adjusted_loss(out.logits, batch.labels, weight=weight)}
