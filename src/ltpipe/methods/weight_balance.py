"""Weight balancing (Alshammari et al., CVPR 2022): a head with strong weight decay and MaxNorm on a finished backbone.

Classes with many images get long weight vectors, and long vectors win. The first stage is a run of cross-entropy with
a tuned, strong weight decay. This method is the second stage: the backbone is frozen, the linear head goes on training
with a class-balanced loss and weight decay, and after each step a vector that is longer than the limit is cut to it.

Formula:
    m    = min_c ||W_c|| + threshold (max_c ||W_c|| - min_c ||W_c||)        of the finished run, kept
    w_c  = (1 - beta) / (1 - beta^n_c), then scaled so that they sum to the number of classes with images
    p_b  = softmax(s_b)
    loss = mean_bc -w_yb [onehot(y_b)_c log p_bc + (1 - onehot(y_b)_c) log(1 - p_bc)]
    W_c <- W_c min(1, m / ||W_c||)                    after each step; prediction: argmax_c s_c

Use:
    weight_balance: {}

Suggested values: the defaults are the authors' of CIFAR-100-LT: 10 epochs, lr 0.01, weight decay 0.1, threshold 0.1,
batch 64. Their first stage has weight decay 5e-3 (the run that `start_from` names, with
`schedule: {weight_decay: 5.0e-3}`).

Where the authors' code differs:
* It cuts the vectors once an epoch, before validation. Here it is after each step, as projected gradient descent is
  usually written.
* It leaves the backbone in training mode, so that its batch-norm statistics drift. `drift: true` does the same.
* It keeps the epoch that is best on the test images. Here the last epoch counts.
* Its loss is the binary one above. `loss: softmax` is the weighted cross-entropy of class_balanced instead.

Cost: only the second stage is counted; the finished run comes before it.

Attribution: Alshammari et al., CVPR 2022; authors' code ShadeAlsha/LTR-weight-balancing (MIT licence). The code here is
written from the formulas.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import Phase
from ltpipe.interface.streams import Batch
from ltpipe.mathematics.losses import adjusted_loss, class_balanced_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output

EXAMPLE = {"epochs": 2}


class Config(Spec):
    """Recipe of the second stage."""

    epochs: int = Field(10, gt=0, description="epochs of the second stage")
    lr: float = Field(0.01, gt=0, description="learning rate at its start; cosine decay to 0")
    weight_decay: float = Field(0.1, ge=0, description="weight decay of the head")
    threshold: float = Field(
        0.1, ge=0, le=1, description="largest norm of a class: 0 is the shortest of the finished run, 1 the longest"
    )
    beta: float = Field(0.9999, ge=0, le=1, description="0: equal weights of the classes; 1: weights 1 / n_c")
    loss: Literal["binary", "softmax"] = Field("binary", description="the authors' loss, or weighted cross-entropy")
    drift: bool = Field(
        False, description="batch-norm statistics of the frozen backbone follow the stream, as in the authors' code"
    )


def limit_of(weight: "Tensor", threshold: float) -> "Tensor":
    """Return the largest norm that a row may have, a scalar. weight: W, C x D."""
    norms = weight.norm(dim=1)
    return norms.min() + threshold * (norms.max() - norms.min())


def shortened(weight: "Tensor", limit: "Tensor") -> "Tensor":
    """Return W with each row cut to the norm `limit`, C x D; shorter rows stay as they are. weight: W, C x D."""
    return weight * (limit / weight.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)


def binary_loss(logits: "Tensor", labels: "Tensor", weight: "Tensor") -> "Tensor":
    """Return the binary cross-entropy of all B x C probabilities, weighted by the image's class; scalar, nats.

    logits: B x C. labels: B. weight: C.
    """
    from torch.nn import functional as F

    truth = F.one_hot(labels, logits.shape[1]).float()
    return F.binary_cross_entropy(logits.softmax(dim=1), truth, weight=weight[labels][:, None].expand_as(truth))


class Method(method.Method):
    """Train the head in one phase; the limit is a buffer."""

    def needs(self) -> method.Needs:
        return method.Needs(start_from=True)

    def head(self, features: int) -> "nn.Module":
        self.linear: Any = super().head(features)
        return self.linear

    def build(self, features: int) -> "nn.Module":
        weight = class_balanced_weights(self.problem.counts, self.config.beta)
        return method.buffers(weight=weight, limit=np.zeros(()))

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        config = self.config
        return (
            Phase(
                config.epochs,
                config.lr,
                trainable=("head",),
                drift=config.drift,
                augment=schedule.augment,
                weight_decay=config.weight_decay,
            ),
        )

    def begin_epoch(self, embed: method.Embed) -> None:
        if self.clock.epoch == 0:
            self.own.limit.copy_(limit_of(self.linear.weight.detach(), self.config.threshold))

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        if self.config.loss == "softmax":
            return {"loss": adjusted_loss(out.logits, batch.labels, weight=self.own.weight)}
        return {"loss": binary_loss(out.logits, batch.labels, self.own.weight)}

    def after_step(self, out: "Output", batch: Batch) -> None:
        self.linear.weight.copy_(shortened(self.linear.weight, self.own.limit))
