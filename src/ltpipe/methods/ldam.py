"""Label-distribution-aware margin (Cao et al., NeurIPS 2019): a larger margin for rarer classes, on cosine logits.

    s_c = scale cos(z, W_c)                                 features and weights of unit length, no bias
    m_c = margin n_c^(-1/4) / max_j n_j^(-1/4)
    loss = CE(s - scale m_y onehot(y))                      prediction argmax s

DRW, deferred re-weighting: from `drw` on the loss has class-balanced weights (Cui et al., CVPR 2019, beta), as a
weighted mean over the batch, as in the authors' code: from epoch 160 of 200 (`drw: 0.8`). The paper's text has weights
1 / n_c, which is beta = 1.

Where the authors' code differs: it keeps the epoch with the best accuracy on the test set; here it is the last.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import When
from ltpipe.interface.streams import Batch
from ltpipe.mathematics.losses import adjusted_loss, class_balanced_weights, ldam_margins

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output

EXAMPLE = {"drw": 1}


class Config(Spec):
    """margin: of the rarest class, in units of the cosine. drw: when the class weights begin; None: never."""

    margin: float = Field(0.5, ge=0)
    scale: float = Field(30.0, gt=0)
    drw: When | None = None
    beta: float = Field(0.9999, ge=0, le=1)


class Method(method.Method):
    """A cosine head, and margins and weights as buffers."""

    def head(self, features: int) -> "nn.Module":
        from ltpipe.layers.heads import Cosine

        return Cosine(features, self.problem.classes, self.config.scale)

    def build(self, features: int) -> "nn.Module":
        counts, config = self.problem.counts, self.config
        return method.buffers(
            margin=config.scale * ldam_margins(counts, config.margin),
            weight=class_balanced_weights(counts, config.beta),
        )

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        late = self.config.drw is not None and self.clock.passed(self.config.drw)
        weight = self.own.weight if late else None
        return {"loss": adjusted_loss(out.logits, batch.labels, margin=self.own.margin, weight=weight)}
