"""Label-distribution-aware margin (Cao et al., NeurIPS 2019, LDAM): cosine logits, larger margins for rarer classes.

The logits are cosines between features and class weights. In the loss, a margin is subtracted from the logit of the
true class, so that the network must be more certain about rare classes. DRW (deferred re-weighting) adds class-balanced
weights (Cui et al., CVPR 2019) from the time `drw` on.

Formula:
    s_c  = scale cos(z, W_c)                          no bias
    m_c  = margin n_c^(-1/4) / max_j n_j^(-1/4)
    loss = CE(s - scale m_y onehot(y), y)             mean over the batch; prediction: argmax_c s_c
    from `drw` on: weighted mean over the batch, with the weights of `class_balanced`

Use:
    ldam: {}
    ldam_drw: {drw: 0.8}

Suggested values:
* CIFAR-10-LT and CIFAR-100-LT: margin 0.5, scale 30, DRW from epoch 160 of 200: `drw: 0.8` (authors' code).
* Tiny ImageNet-LT: margin 0.5, DRW from the last decay, epoch 90 of 120: `drw: 0.75` (paper, appendix C.2).
* iNaturalist: margin 0.3 (paper, appendix B).
* ImageNet-GLT: `drw: 80`, and the run's `schedule: {decay: {80: 0.01, 90: 1.0e-4}, weight_decay: 2.0e-4}` (code of Tang
  et al., 2022).
* beta 0.9999 is the code's value. The paper's text has weights 1 / n_c, which is `beta: 1`.

Where the authors' code differs:
* It keeps the epoch with the best accuracy on the test set; here the last epoch counts.
* The code of Tang et al., 2022 sorts the classes as text when it counts their images, so that classes get the count of
  another class; here the counts are in class order.

Attribution: Cao et al., NeurIPS 2019, arXiv:1906.07413; authors' code kaidic/LDAM-DRW (MIT licence). The code here is
written from the formulas.
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
    """Margins, and the class weights of DRW."""

    margin: float = Field(0.5, ge=0, description="margin of the rarest class, in units of the cosine")
    scale: float = Field(30.0, gt=0, description="factor from cosines to logits")
    drw: When | None = Field(None, description="when the class weights begin; null: never")
    beta: float = Field(0.9999, ge=0, le=1, description="of the class weights; 0: equal weights, 1: weights 1 / n_c")


class Method(method.Method):
    """Use a cosine head; keep margins and weights as buffers, C each."""

    def head(self, features: int) -> "nn.Module":
        from ltpipe.layers.heads import Cosine

        return Cosine(features, self.problem.classes, self.config.scale)

    def build(self, features: int) -> "nn.Module":
        counts, config = self.problem.counts, self.config
        return method.buffers(
            # in logits: scale (s - m) = scale s - scale m
            margin=config.scale * ldam_margins(counts, config.margin),
            weight=class_balanced_weights(counts, config.beta),
        )

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        reweight = self.config.drw is not None and self.clock.passed(self.config.drw)
        weight = self.own.weight if reweight else None
        return {"loss": adjusted_loss(out.logits, batch.labels, margin=self.own.margin, weight=weight)}
