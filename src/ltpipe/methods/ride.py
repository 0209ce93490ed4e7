"""RIDE (Wang et al., ICLR 2021): experts on a shared trunk, each with LDAM's loss, kept apart by a diversity term.

    loss = sum_e CE_w(s_e - scale m_y onehot(y)) + diversity * mean(T)^2 * sum_e KL(softmax(s / T) || softmax(s_e / T))

s_e are cosine logits times `scale`; s, their mean, has no gradient here; diversity < 0 rewards difference. Until
`reweight` T = 1 and w = 1; from then on w are class-balanced weights (Cui et al., CVPR 2019) and T_c = v_c / max v with
v_c = C pi_c balance + 1 - balance. Authors' values of `diversity` and `balance`: ImageNet-LT -0.2 and 0.02,
CIFAR-100-LT -0.45 and 0.05, iNaturalist `balance` 0.015. Stage 1 of the paper: all experts answer, their mean is the
prediction; no routing.

Where the authors' code differs: its CIFAR runs keep the epoch with the best accuracy on the test set; here it is the
last.
"""

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import When
from ltpipe.interface.streams import Batch
from ltpipe.mathematics.losses import adjusted_loss, class_balanced_weights, ldam_margins

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output

EXAMPLE = {"reweight": 1}


class Config(Spec):
    """margin: of the rarest class, in units of the cosine. reweight: when w and T begin; None: never."""

    experts: int = Field(3, ge=2)
    scale: float = Field(30.0, gt=0)
    margin: float = Field(0.5, ge=0)
    diversity: float = -0.2
    reweight: When | None = 0.8
    beta: float = Field(0.9999, ge=0, le=1)
    balance: float = Field(0.02, ge=0, le=1)


def class_temperatures(prior: np.ndarray, balance: float) -> np.ndarray:
    """T_c = v_c / max v, v_c = C pi_c balance + 1 - balance; C, float64, in 0..1, 1 for the most frequent class."""
    v = len(prior) * prior * balance + 1 - balance
    return np.asarray(v / v.max())


def divergence(experts: "Tensor", temperature: "Tensor") -> "Tensor":
    """mean(T)^2 sum_e KL(softmax(mean_e s_e / T) || softmax(s_e / T)), mean over the batch; scalar, nats.

    experts: B x E x C. temperature: C. No gradient through the mean.
    """
    from torch.nn import functional as F

    mean = F.log_softmax(experts.detach().mean(dim=1, keepdim=True) / temperature, dim=2)
    each = F.log_softmax(experts / temperature, dim=2)
    return temperature.mean() ** 2 * (mean.exp() * (mean - each)).sum(dim=2).mean(dim=0).sum()


class Method(method.Method):
    """Experts with cosine heads; margins, weights and temperatures as buffers."""

    def needs(self) -> method.Needs:
        return method.Needs(branches=self.config.experts, narrow=method.NARROW)

    def head(self, features: int) -> "nn.Module":
        from ltpipe.layers.heads import Cosine, PerExpert

        scale, classes = self.config.scale, self.problem.classes
        return PerExpert([Cosine(features, classes, scale) for _ in range(self.config.experts)])

    def build(self, features: int) -> "nn.Module":
        counts, config = self.problem.counts, self.config
        return method.buffers(
            margin=config.scale * ldam_margins(counts, config.margin),
            weight=class_balanced_weights(counts, config.beta),
            temperature=class_temperatures(self.problem.prior, config.balance),
        )

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        import torch

        assert out.experts is not None
        margin, temperature, weight = self.own.margin, torch.ones_like(self.own.temperature), None
        if self.config.reweight is not None and self.clock.passed(self.config.reweight):
            temperature, weight = self.own.temperature, self.own.weight
        each = [adjusted_loss(s, batch.labels, margin=margin, weight=weight) for s in out.experts.unbind(dim=1)]
        apart = divergence(out.experts, temperature)
        return {"loss": torch.stack(each).sum() + self.config.diversity * apart, "divergence": apart}
