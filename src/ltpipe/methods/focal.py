"""Focal loss (Lin et al., ICCV 2017): mean_b (1 - p_y)^gamma (-log p_y), eq. 4 without alpha.

gamma = 2 is the paper's; the code of Cao et al., 2019 has 1. The paper's is a sum of binary losses, one a class; this
is the softmax form of the long-tail literature.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.streams import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from ltpipe.models.network import Output


class Config(Spec):
    """gamma: 0 is cross-entropy."""

    gamma: float = Field(2.0, ge=0)


def focal_loss(logits: "Tensor", labels: "Tensor", gamma: float) -> "Tensor":
    """Scalar, nats. logits: B x C. labels: B."""
    from torch.nn import functional as F

    losses = F.cross_entropy(logits, labels, reduction="none")
    # 1 - p without cancellation; the floor keeps the gradient of x^gamma finite at 0 for gamma < 1
    missing = (-(-losses).expm1()).clamp(min=1e-12)
    return (missing**gamma * losses).mean()


class Method(method.Method):
    """Another loss; no state."""

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        return {"loss": focal_loss(out.logits, batch.labels, self.config.gamma)}
