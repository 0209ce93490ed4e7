"""tau-normalised classifier (Kang et al., ICLR 2020): divide each class's weights by a power of their length.

Nothing is trained. Frequent classes have longer weight vectors than rare ones after training with SGD (with Adam they
do not: Menon et al., 2021, figure 1). Dividing by the length to the power tau takes this advantage away. The bias of
the head is dropped. The finished run must have a linear head. `tau: val` picks the tau of 0, 0.1, ..., 3 with the best
macro recall on the validation split.

Formula:
    W_c  <- W_c / ||W_c||^tau                         no bias; prediction: argmax_c W_c . z

Use:
    tau_norm: {tau: val}

Suggested values: the defaults. The authors try tau from 0 to 2 in steps of 0.1.

Where the authors' code differs: it prints the result of every tau on the split that it gets, which leaks test labels if
that is the test split. Here tau is chosen on the validation split, and up to 3.

Attribution: Kang et al., ICLR 2020; authors' code facebookresearch/classifier-balancing (BSD-style licence). The code
here is written from the formula.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import Phase
from ltpipe.mathematics.tau import choose_tau

if TYPE_CHECKING:
    from torch import Tensor

    from ltpipe.models.network import Network


class Config(Spec):
    """Strength of the normalisation."""

    tau: float | Literal["val"] = Field(
        "val",
        description="exponent: 0 keeps the weights, 1 gives them length 1; `val` chooses it on the validation split",
    )


def normalised(weight: "Tensor", tau: float) -> "Tensor":
    """Return W_c / ||W_c||^tau, C x D. A row of zeros stays a row of zeros. weight: W, C x D."""
    return weight / weight.norm(dim=1, keepdim=True).clamp(min=1e-12) ** tau


class Method(method.Method):
    """Change the weights of the head; train nothing."""

    def needs(self) -> method.Needs:
        return method.Needs(start_from=True)

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        return ()

    def finish(self, network: "Network", embed: method.Embed) -> dict[str, Any]:
        import torch
        from torch import nn

        head = network.head
        assert isinstance(head, nn.Linear)
        weight = head.weight.detach()
        choice: dict[str, Any] = {"tau": self.config.tau}
        if self.config.tau == "val":
            val = method.concatenate(embed("val"))
            choice = choose_tau(lambda tau: val.features @ normalised(weight, tau).T, val.labels, self.problem.classes)
        with torch.no_grad():
            head.weight.copy_(normalised(weight, choice["tau"]))
            if head.bias is not None:  # the model may have heads without one
                head.bias.zero_()
        return choice
