"""Balanced softmax (Ren et al., NeurIPS 2020): cross-entropy on s + log n, prediction argmax s (eq. 4).

The logit-adjusted loss with tau = 1, because log n and log pi differ by a constant. n is the class distribution of the
training stream: with class-balanced sampling on top, counts of the split would balance twice (section 3.2).
"""

from typing import TYPE_CHECKING

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.streams import Batch
from ltpipe.mathematics.losses import adjusted_loss, log_prior

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output


class Config(Spec):
    """No options."""


class Method(method.Method):
    """log n, up to a constant, as a buffer."""

    def build(self, features: int) -> "nn.Module":
        return method.buffers(log_prior=log_prior(self.problem.prior))

    def class_prior_changed(self, prior: "Tensor") -> None:
        self.own.log_prior.copy_(prior.log())

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        return {"loss": adjusted_loss(out.logits, batch.labels, self.own.log_prior)}
