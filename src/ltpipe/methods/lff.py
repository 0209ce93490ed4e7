"""Learning from failure (Nam et al., NeurIPS 2020, LFF): learn from what a biased network gets wrong.

Two whole networks see the same images. The first is made biased: its loss counts an image more, the surer it already
is of it, so that it learns what is easy. In the loss of the second, an image counts more if the first finds it harder
than the second does. The second is served.

Formula:
    biased  = mean_b q p_b^q CE(s_b, y_b)             p = softmax(s_b)_yb of the biased network; no gradient through p^q
    target  = mean_b w_b CE(t_b, y_b)                 s: logits of the biased network, t: of the target network
    w_b     = CE(s_b, y_b) / (CE(s_b, y_b) + CE(t_b, y_b) + 1e-8)             no gradient
    loss    = biased + target                         prediction: argmax_c t_c

Use:
    lff: {q: 0.7}

Suggested values: the default; q 0.7 is also the value in the code of Tang et al., 2022 (ImageNet-GLT, MSCOCO-GLT).

Where the authors' code differs: the authors' own code was not compared. The formulas are those of the code of Tang et
al., 2022, of which no difference is known.

Cost: two networks, each with its forward and backward pass; the exported model answers with one.

Attribution: Nam et al., NeurIPS 2020. The code here is written from the formulas; details come from
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

BIASED, TARGET = 0, 1  # numbers of the networks


class Config(Spec):
    """How biased the first network is."""

    q: float = Field(0.7, ge=0, le=1, description="exponent of p; 0 switches the biased network off")


def failure_losses(biased: "Tensor", target: "Tensor", labels: "Tensor", q: float) -> "tuple[Tensor, Tensor]":
    """Return the losses of the biased and the target network, scalars, nats. biased, target: B x C. labels: B."""
    from torch.nn import functional as F

    easy, hard = (F.cross_entropy(logits, labels, reduction="none") for logits in (biased, target))
    sure = q * (-q * easy.detach()).exp()  # q p^q, because log p = -CE
    weight = easy.detach() / (easy.detach() + hard.detach() + 1e-8)
    return (sure * easy).mean(), (weight * hard).mean()


class Method(method.Method):
    """Two networks with nothing in common but their images."""

    def needs(self) -> method.Needs:
        return method.Needs(branches=2, private="all")

    def head(self, features: int) -> "nn.Module":
        from ltpipe.layers.heads import PerExpert

        return PerExpert([method.linear_head(features, self.problem) for _ in (BIASED, TARGET)])

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        assert out.experts is not None
        logits = out.experts[:, BIASED], out.experts[:, TARGET]
        biased, target = failure_losses(*logits, batch.labels, self.config.q)
        return {"loss": biased + target, "biased": biased, "target": target}

    def predict(self, out: "Output") -> "Tensor":
        assert out.experts is not None
        return out.experts[:, TARGET]
