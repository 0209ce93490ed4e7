"""RIDE (Wang et al., ICLR 2021): experts on a shared trunk, each with LDAM's loss, kept apart by a diversity term.

Several experts share the first stages of the network and have narrower last stages of their own. Each is trained with
LDAM's loss; a further term rewards experts that differ from their mean. The mean of the experts' logits is the
prediction. This is stage 1 of the paper: all experts answer each image, without routing.

Formula:
    s_e  = scale cos(z_e, W_e)                        logits of expert e, no bias; s: mean of s_e over the experts
    loss = sum_e CE_w(s_e - scale m_y onehot(y), y) + diversity * R
    R    = mean(T)^2 * sum_e KL(softmax(s / T) || softmax(s_e / T))            mean over the batch
    prediction: argmax_c s_c

    No gradient flows through s in R. diversity < 0 rewards difference. m_c: margins of `ldam`.
    before `reweight`:   w = 1 and T = 1
    from `reweight` on:  w: weights of `class_balanced`
                         T_c = v_c / max_j v_j, with v_c = C pi_c balance + 1 - balance

Use:
    ride: {}
    ride_cifar100: {diversity: -0.45, balance: 0.05}

Suggested values: from the authors' code, if nothing else is said.
* ImageNet-LT: diversity -0.2 and balance 0.02, the defaults, and the run's `schedule: {epochs: 100, batch: 256, lr:
  0.1, decay: {60: 0.1, 80: 0.01}, nesterov: true, weight_decay: 2.0e-4}`.
* CIFAR-100-LT: diversity -0.45 and balance 0.05, and the run's `schedule: {weight_decay: 5.0e-4, nesterov: true,
  augment: {rotate: 15}}`.
* iNaturalist 2018: balance 0.015, and ImageNet-LT's schedule with batch 512 and lr 0.2.
* ImageNet-GLT: `reweight: 81`, and the run's `schedule: {decay: {60: 0.1, 80: 0.01}, weight_decay: 2.0e-4}` (code of
  Tang et al., 2022).

Where the authors' code differs:
* Its reported numbers are with expert assignment (EA), a second stage that learns how many experts answer an image;
  here all of them answer.
* Its CIFAR runs keep the epoch with the best accuracy on the test set; here the last epoch counts.
* `reweight` is an epoch counted from 0, and the first with weights. The authors begin with the 161st of 200 epochs,
  which is the default 0.8. The code of Tang et al., 2022 has the same condition (`epoch > 80`) but counts from 0, so
  that it begins with the 82nd of 100: `reweight: 81`.
* The code of Tang et al., 2022 sorts the classes as text when it counts their images, so that classes get the count of
  another class; here the counts are in class order.

Attribution: Wang et al., ICLR 2021; authors' code frank-xwang/RIDE-LongTailRecognition (MIT licence). The code here is
written from the formulas.
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
    """Experts, their margins, and the terms that keep them apart."""

    experts: int = Field(3, ge=2, description="number of experts")
    scale: float = Field(30.0, gt=0, description="factor from cosines to logits")
    margin: float = Field(0.5, ge=0, description="margin of the rarest class, in units of the cosine")
    diversity: float = Field(-0.2, description="weight of R; negative values reward different experts")
    reweight: When | None = Field(0.8, description="when class weights and temperatures begin; null: never")
    beta: float = Field(0.9999, ge=0, le=1, description="of the class weights; 0: equal weights, 1: weights 1 / n_c")
    balance: float = Field(
        0.02, ge=0, le=1, description="share of the class prior in the temperatures; 0: all temperatures are 1"
    )


def class_temperatures(prior: np.ndarray, balance: float) -> np.ndarray:
    """Return T_c = v_c / max_j v_j with v_c = C pi_c balance + 1 - balance; C, float64, in 0..1.

    The most frequent class has temperature 1. prior: pi, C.
    """
    v = len(prior) * prior * balance + 1 - balance
    return np.asarray(v / v.max())


def divergence(experts: "Tensor", temperature: "Tensor") -> "Tensor":
    """Return mean(T)^2 sum_e KL(softmax(mean_e s_e / T) || softmax(s_e / T)), mean over the batch; scalar, nats.

    experts: logits s_e, B x E x C. temperature: T, C. No gradient flows through the mean of the experts.
    """
    from torch.nn import functional as F

    mean = F.log_softmax(experts.detach().mean(dim=1, keepdim=True) / temperature, dim=2)
    single = F.log_softmax(experts / temperature, dim=2)
    # KL(p || q) = sum_c p (log p - log q): over classes, then the mean over the batch, then the sum over experts
    return temperature.mean() ** 2 * (mean.exp() * (mean - single)).sum(dim=2).mean(dim=0).sum()


class Method(method.Method):
    """Experts with cosine heads; margins, weights and temperatures are buffers, C each."""

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
        losses = [adjusted_loss(s, batch.labels, margin=margin, weight=weight) for s in out.experts.unbind(dim=1)]
        kl = divergence(out.experts, temperature)
        return {"loss": torch.stack(losses).sum() + self.config.diversity * kl, "divergence": kl}
