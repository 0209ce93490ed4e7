"""Balanced softmax (Ren et al., NeurIPS 2020): cross-entropy on the logits plus the log of the class sizes.

In the loss, log n_c is added to the logit of each class; the prediction uses the plain logits. This equals
`logit_adjust` with tau = 1, because log n and log pi differ by a constant. The class sizes are those of the training
stream: if a method resamples the images, the counts of the split would balance twice (section 3.2 of the paper).

Formula:
    loss = mean_b CE(s_b + log n, y_b)                eq. 4 of the paper; prediction: argmax_c s_c

Use:
    balanced_softmax: {}

Suggested values: the defaults; there are no options.

Where the authors' code differs: the authors' own code was not compared. The code of Tang et al., 2022 sorts the classes
as text when it counts their images ("0", "1", "10", ...), so that classes get the count of another class: on
ImageNet-GLT 11 % of the classes have a prior that is wrong by more than a factor of 2, on MSCOCO-GLT 27 of 29 classes
have another class's count. Here the counts are in class order.

Attribution: Ren et al., NeurIPS 2020, arXiv:2007.10740. The code here is written from the formula.
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
    """Keep log pi (log n up to a constant) as a buffer, C."""

    def build(self, features: int) -> "nn.Module":
        return method.buffers(log_prior=log_prior(self.problem.prior))

    def class_prior_changed(self, prior: "Tensor") -> None:
        self.own.log_prior.copy_(prior.log())

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        return {"loss": adjusted_loss(out.logits, batch.labels, self.own.log_prior)}
