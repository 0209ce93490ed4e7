"""Stochastic gradient descent with momentum. `momentum` and `nesterov` are keys of the schedule.

Weight decay is added to the gradient (L2), before momentum.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ltpipe.optimisers import Options

if TYPE_CHECKING:
    from torch import Tensor


class Config(Options):
    """No options of its own."""

    def follows(self) -> Mapping[str, Any]:
        return {"momentum": 0.9, "nesterov": False}


def update(
    config: Config,
    group: Mapping[str, Any],
    parameters: "list[Tensor]",
    gradients: "list[Tensor]",
    states: Sequence[dict[str, Any]],
) -> None:
    """Take a step, bit for bit that of torch.optim.SGD. states: "momentum", like the parameter; None without it."""
    from torch.optim.sgd import sgd

    momenta = [state.get("momentum") for state in states]
    first = any(momentum is None for momentum in momenta)
    sgd(
        parameters,
        gradients,
        momenta,
        has_sparse_grad=False,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        dampening=0.0,
        nesterov=group["nesterov"],
        maximize=False,
    )
    if first:  # torch has made them; the others it changed in place
        for state, momentum in zip(states, momenta, strict=True):
            state["momentum"] = momentum
