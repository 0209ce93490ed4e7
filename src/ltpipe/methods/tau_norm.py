"""tau-normalised classifier (Kang et al., ICLR 2020): W_c / ||W_c||^tau of a finished run, the bias dropped.

Nothing is trained. tau = "val" picks the tau of 0, 0.1, ..., 3 with the best macro recall on the validation split. It
depends on norms that follow class frequency, which holds with SGD and fails with Adam (Menon et al., 2021, figure 1).

Where the authors' code differs: it prints every tau on the split it is given, which leaks where that is the test set.
"""

from typing import TYPE_CHECKING, Any, Literal

from ltpipe.config.spec import Spec
from ltpipe.interface import method
from ltpipe.interface.phases import Phase
from ltpipe.mathematics.tau import choose

if TYPE_CHECKING:
    from torch import Tensor

    from ltpipe.models.network import Network


class Config(Spec):
    """tau: 0 keeps the weights (without their bias), 1 makes them unit vectors, "val" chooses."""

    tau: float | Literal["val"] = "val"


def normalised(weight: "Tensor", tau: float) -> "Tensor":
    """W_c / ||W_c||^tau, C x D; a row of zeros stays one."""
    return weight / weight.norm(dim=1, keepdim=True).clamp(min=1e-12) ** tau


class Method(method.Method):
    """Other weights at the end."""

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
        found: dict[str, Any] = {"tau": self.config.tau}
        if self.config.tau == "val":
            val = method.concatenate(embed("val"))
            found = choose(lambda tau: val.features @ normalised(weight, tau).T, val.labels, self.problem.classes)
        with torch.no_grad():
            head.weight.copy_(normalised(weight, found["tau"]))
            head.bias.zero_()
        return found
