"""Adam with decoupled weight decay: the weights shrink by lr * weight_decay (Loshchilov and Hutter, ICLR 2019)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ltpipe.optimisers import Options

if TYPE_CHECKING:
    from torch import Tensor

Share = Annotated[float, Field(ge=0, lt=1)]


class Config(Options):
    """The averages of Adam. The defaults are those of torch's AdamW."""

    betas: tuple[Share, Share] = Field(
        (0.9, 0.999), description="share that a step keeps of the average gradient, and of its average square"
    )
    eps: float = Field(1e-8, gt=0, description="added to the root of the average square")


def update(
    config: Config,
    group: Mapping[str, Any],
    parameters: "list[Tensor]",
    gradients: "list[Tensor]",
    states: Sequence[dict[str, Any]],
) -> None:
    """Take a step, bit for bit that of torch.optim.AdamW. states: step (scalar), mean and square, like the gradient."""
    import torch
    from torch.optim.adamw import adamw

    for state, parameter in zip(states, parameters, strict=True):
        if not state:
            state |= {"step": torch.tensor(0.0), "mean": torch.zeros_like(parameter)}
            state["square"] = torch.zeros_like(parameter)
    adamw(
        parameters,
        gradients,
        [state["mean"] for state in states],
        [state["square"] for state in states],
        [],
        [state["step"] for state in states],
        amsgrad=False,
        beta1=config.betas[0],
        beta2=config.betas[1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=config.eps,
        maximize=False,
    )
