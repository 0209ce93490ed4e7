"""Total direct effect (Tang et al., NeurIPS 2020): normalised logits less what the momentum's direction alone answers.

    train    s = (scale / K) sum_k W_k . z_k / ((||W_k|| + floor) ||z_k||)         z_k: the k-th part of the features
    serve    s = (scale / K) sum_k W_k . (z_k / ||z_k|| - alpha cos(z_k, d_k) d_k) / (||W_k|| + floor)

d is the direction of a moving average (0.995) of the batches' mean feature, a buffer. alpha: 2 on ImageNet-GLT, 1 on
MSCOCO-GLT, 0 on their class-balanced training splits, in the authors' recipes.
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
    """heads: K, a divisor of the features. momentum: of the moving average."""

    heads: int = Field(2, ge=2)
    scale: float = Field(16.0, gt=0)
    floor: float = Field(1 / 32, ge=0)
    alpha: float = 2.0
    momentum: float = Field(0.995, ge=0, lt=1)


def without_direction(each: "Tensor", features: "Tensor", mean: "Tensor", effect: "Tensor", alpha: float) -> "Tensor":
    """Logits less alpha times the direction's, B x C. each: B x K x C, logits of the K parts. features: B x D.

    mean: D, the moving average (0: no direction, nothing is taken off). effect: K x C, the logits of its direction.
    """
    from torch.nn import functional as F

    parts = F.normalize(features.unflatten(1, (len(effect), -1)), dim=2)
    direction = F.normalize(mean.unflatten(0, (len(effect), -1)), dim=1)
    likeness = (parts * direction).sum(dim=2, keepdim=True)
    return (each - alpha * likeness * effect).mean(dim=1)


class Method(method.Method):
    """A multi-head classifier; the moving average as a buffer."""

    def head(self, features: int) -> "nn.Module":
        from ltpipe.layers.heads import MultiHead

        config = self.config
        # predict() asks it for the direction's logits; it is the network's head, which checkpoints hold
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
