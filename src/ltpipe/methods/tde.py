"""Total direct effect (Tang et al., NeurIPS 2020, TDE): subtract the logits that the mean feature alone would give.

During training, a moving average of the batches' mean features is kept. At prediction, the part of the features along
the direction of this average is removed, alpha times. The classifier normalises features and weights, and has K parts,
each for its part of the features.

Formula:
    training:    s = (scale / K) sum_k W_k . z_k / ((||W_k|| + floor) ||z_k||)         z_k: the k-th part of z
    prediction:  s = (scale / K) sum_k W_k . (z_k / ||z_k|| - alpha cos(z_k, d_k) d_k) / (||W_k|| + floor)
    d_k: direction of the k-th part of the moving average of the batches' mean features
    loss = CE(s, y) of the training logits

Use:
    tde: {alpha: 2.0}

Suggested values:
* ImageNet-GLT: alpha 2, the default (code of Tang et al., 2022); 0 on its class-balanced training split.
* MSCOCO-GLT: alpha 1 (code of Tang et al., 2022); 0 on its class-balanced training split.
* heads 2, scale 16, floor 1/32 and momentum 0.995 are the values of the same code.

Where the authors' code differs: no difference from the code of Tang et al., 2022 is known; that of the 2020 paper was
not compared.

Attribution: Tang et al., NeurIPS 2020. The code here is written from the formulas; details come from
KaihuaTang/Generalized-Long-Tailed-Benchmarks.pytorch (non-commercial licence), from which nothing was copied.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.streams import Batch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output


class Config(Spec):
    """The classifier, and what the prediction subtracts."""

    heads: int = Field(2, ge=2, description="K, parts of the features; must divide their number D")
    scale: float = Field(16.0, gt=0, description="factor from normalised products to logits")
    floor: float = Field(1 / 32, ge=0, description="added to the length of each weight vector")
    alpha: float = Field(2.0, description="how much of the mean direction the prediction removes; 0: nothing")
    momentum: float = Field(0.995, ge=0, lt=1, description="share of the moving average that a step keeps")


def without_direction(parts: "Tensor", features: "Tensor", mean: "Tensor", effect: "Tensor", alpha: float) -> "Tensor":
    """Return the logits less alpha times those of the mean direction, B x C.

    parts: logits of the K parts, B x K x C. features: B x D. mean: the moving average, D; 0 has no direction, so that
    nothing is subtracted. effect: logits of the mean direction, K x C.
    """
    from torch.nn import functional as F

    unit = F.normalize(features.unflatten(1, (len(effect), -1)), dim=2)
    direction = F.normalize(mean.unflatten(0, (len(effect), -1)), dim=1)
    cosine = (unit * direction).sum(dim=2, keepdim=True)
    # The logits are linear in the normalised features, so the logits of cos(z_k, d_k) d_k are cos(z_k, d_k) * effect.
    return (parts - alpha * cosine * effect).mean(dim=1)


class Method(method.Method):
    """A classifier of K parts; the moving average of the features is a buffer, D."""

    def head(self, features: int) -> "nn.Module":
        from ltpipe.layers.heads import MultiHead

        config = self.config
        # predict() needs the head for the logits of the mean direction. Checkpoints hold it as the network's head.
        self.classifier = MultiHead(features, self.problem.classes, config.heads, config.scale, config.floor)
        return self.classifier

    def build(self, features: int) -> "nn.Module":
        import numpy as np

        return method.buffers(mean=np.zeros(features))

    def after_step(self, out: "Output", batch: Batch) -> None:
        self.own.mean.lerp_(out.features.mean(dim=0), 1 - self.config.momentum)

    def predict(self, out: "Output") -> "Tensor":
        assert out.experts is not None
        effect = self.classifier(self.own.mean[None])[0]
        return without_direction(out.experts, out.features, self.own.mean, effect, self.config.alpha)
