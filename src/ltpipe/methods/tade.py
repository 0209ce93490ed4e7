"""TADE, in print SADE (Zhang et al., NeurIPS 2022): three experts for three class distributions; their mean is served.

    expert 1  CE(s_1)                                            as the training stream
    expert 2  CE(s_2 + log pi)                                   uniform
    expert 3  CE(s_3 + log pi - tau log pi_inverse)              reversed; pi_inverse: prior with sorted values reversed

The loss is the sum. The paper's weights of the experts are learned on unlabelled test images; here nothing sees a test
image. Heads are cosine (scale 30), as of the RIDE network that the authors use.
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
    """tau: how far beyond uniform the third expert is pushed. head: cosine times scale, or linear with a bias."""

    tau: float = Field(2.0, ge=0)
    head: Literal["cosine", "linear"] = "cosine"
    scale: float = Field(30.0, gt=0)


def inverse(prior: "Tensor") -> "Tensor":
    """The prior with the most frequent class given the smallest share, and so on; C."""
    import torch

    rank = prior.argsort(stable=True)
    flipped = torch.empty_like(prior)
    flipped[rank] = prior[rank.flip(0)]
    return flipped


def expert_shifts(log_pi: "Tensor", tau: float) -> "Tensor":
    """What is added to each expert's logits in the loss, 3 x C; log_pi: C."""
    import torch

    return torch.stack([torch.zeros_like(log_pi), log_pi, log_pi - tau * inverse(log_pi)])


class Method(method.Method):
    """Three experts; the prior as a buffer."""

    def needs(self) -> method.Needs:
        return method.Needs(branches=3, narrow=method.NARROW)

    def head(self, features: int) -> "nn.Module":
        from torch import nn

        from ltpipe.layers.heads import Cosine, PerExpert

        classes, config = self.problem.classes, self.config
        if config.head == "linear":
            return PerExpert([nn.Linear(features, classes) for _ in range(3)])
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
