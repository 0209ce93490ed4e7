"""Focal loss (Lin et al., ICCV 2017): images that the network already answers well count less.

The cross-entropy of an image is multiplied by (1 - p)^gamma, where p is the probability of its true class. Easy images
then add little to the loss. This is eq. 4 of the paper without alpha, in the softmax form of the long-tail literature;
the paper's form is a sum of binary losses, one for each class.

Formula:
    p    = softmax(s_b)_yb
    loss = mean_b (1 - p)^gamma (-log p)              prediction: argmax_c s_c

Use:
    focal: {gamma: 1.0}

Suggested values:
* gamma 2 is the paper's value and the default; the code of Tang et al., 2022 (ImageNet-GLT) has it too.
* CIFAR-10-LT and CIFAR-100-LT: gamma 1 (code of Cao et al., 2019).

Where the authors' code differs: the authors' own code was not compared. The code of Tang et al., 2022 stops the
gradient through the factor (1 - p)^gamma (`gradient: detached`); here it flows through both factors.

Attribution: Lin et al., ICCV 2017. The code here is written from the formula.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.streams import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from ltpipe.models.network import Output


class Config(Spec):
    """Strength of the factor."""

    gamma: float = Field(2.0, ge=0, description="exponent of 1 - p; 0 is cross-entropy")
    gradient: Literal["both", "detached"] = Field(
        "both", description="detached: no gradient through the factor (1 - p)^gamma"
    )


def focal_loss(logits: "Tensor", labels: "Tensor", gamma: float, detached: bool = False) -> "Tensor":
    """Return mean_b (1 - p)^gamma (-log p), scalar, nats. logits: B x C. labels: B. detached: of the first factor."""
    from torch.nn import functional as F

    losses = F.cross_entropy(logits, labels, reduction="none")
    # 1 - p as -expm1(log p): no digits are lost if p is near 1. The floor keeps the gradient of x^gamma finite at x = 0
    # for gamma < 1.
    missing = (-(-losses).expm1()).clamp(min=1e-12)
    factor = missing**gamma
    return ((factor.detach() if detached else factor) * losses).mean()


class Method(method.Method):
    """Replace the loss; no state."""

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        return {"loss": focal_loss(out.logits, batch.labels, self.config.gamma, self.config.gradient == "detached")}
