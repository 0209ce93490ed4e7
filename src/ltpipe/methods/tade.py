"""TADE, in print SADE (Zhang et al., NeurIPS 2022): three experts for three class distributions; their mean is served.

Three experts share a trunk. The first is trained for the class distribution of the training images, the second for
equally frequent classes, the third for the reversed distribution. The loss is the sum of their losses. The paper also
learns weights of the experts on unlabelled test images; here the plain mean is served, and nothing sees a test image.

Formula:
    loss = CE(s_1, y) + CE(s_2 + log pi, y) + CE(s_3 + log pi - tau log pi_inv, y)
           as the stream     uniform                 reversed
    prediction: argmax of the mean of s_1, s_2, s_3

    pi_inv: pi with its sorted values reversed; the most frequent class gets the smallest share
    s_e = scale cos(z_e, W_e) (`head: cosine`), or W_e z_e + b_e (`head: linear`)

Use:
    tade: {}

Suggested values: the defaults: tau 2 (authors' configurations, and the code of Tang et al., 2022 for ImageNet-GLT), and
cosine heads with scale 30, as in the RIDE network that the authors use.

Where the authors' code differs:
* At test time it learns weights of the experts on unlabelled test images; here their mean is served.
* The code of Tang et al., 2022 sorts the classes as text when it counts their images, so that classes get the count of
  another class; here the counts are in class order.

Attribution: Zhang et al., NeurIPS 2022; authors' code Vanint/SADE-AgnosticLT. The code here is written from the
formulas.
"""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.streams import Batch
from ltpipe.mathematics.losses import adjusted_loss, log_prior

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Output


class Config(Spec):
    """The third expert's distribution, and the heads."""

    tau: float = Field(2.0, ge=0, description="how far the third expert is pushed towards the reversed distribution")
    head: Literal["cosine", "linear"] = Field("cosine", description="cosine times `scale`, or linear")
    scale: float = Field(30.0, gt=0, description="factor from cosines to logits; only for `head: cosine`")


def inverse(prior: "Tensor") -> "Tensor":
    """Return the prior with its sorted values reversed; C.

    The most frequent class gets the smallest share, the second gets the second smallest, and so on. Also for the log of
    a prior, because the log keeps the order.
    """
    import torch

    rank = prior.argsort(stable=True)
    flipped = torch.empty_like(prior)
    flipped[rank] = prior[rank.flip(0)]
    return flipped


def expert_shifts(log_pi: "Tensor", tau: float) -> "Tensor":
    """Return what the loss adds to the logits of each expert, 3 x C. log_pi: C."""
    import torch

    return torch.stack([torch.zeros_like(log_pi), log_pi, log_pi - tau * inverse(log_pi)])


class Method(method.Method):
    """Three experts; log pi is a buffer, C."""

    def needs(self) -> method.Needs:
        return method.Needs(branches=3, narrow=method.NARROW)

    def head(self, features: int) -> "nn.Module":
        from ltpipe.layers.heads import Cosine, PerExpert

        classes, config = self.problem.classes, self.config
        if config.head == "linear":
            return PerExpert([method.linear_head(features, self.problem) for _ in range(3)])
        return PerExpert([Cosine(features, classes, config.scale) for _ in range(3)])

    def build(self, features: int) -> "nn.Module":
        return method.buffers(log_prior=log_prior(self.problem.prior))

    def class_prior_changed(self, prior: "Tensor") -> None:
        self.own.log_prior.copy_(prior.log())

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        import torch

        assert out.experts is not None
        pairs = zip(out.experts.unbind(dim=1), expert_shifts(self.own.log_prior, self.config.tau), strict=True)
        return {"loss": torch.stack([adjusted_loss(s, batch.labels, shift) for s, shift in pairs]).sum()}
