"""SGD over the trainable parts, and the learning rate of an epoch."""

import math
from typing import Any

import torch
from torch.optim.sgd import sgd as sgd_step

from ltpipe.config.spec import Refused
from ltpipe.interface.method import Method
from ltpipe.interface.phases import Phase
from ltpipe.models.network import Network
from ltpipe.recipe.schedule import Schedule

# What a method may set for its own parameters. The loop sets lr anew in every epoch, so a method's lr would be lost.
OWN_OPTIONS = {"weight_decay"}


class SGD:
    """torch's SGD without torch.optim.Optimizer, bit for bit the same steps.

    The class imports the compiler (torch._dynamo) at its first use: 1.4 s of a training stage that compiles nothing.
    The interface is that class's: param_groups, zero_grad, step, state_dict, load_state_dict.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float, nesterov: bool, weight_decay: float) -> None:
        self.param_groups = [{"weight_decay": weight_decay, **group} for group in groups]
        self.momentum, self.nesterov = momentum, nesterov
        self.momenta: list[list[torch.Tensor | None]] = [[None] * len(group["params"]) for group in groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step with each group's lr and weight_decay; parameters without a gradient stay."""
        for group, momenta in zip(self.param_groups, self.momenta, strict=True):
            moving = [i for i, parameter in enumerate(group["params"]) if parameter.grad is not None]
            buffers = [momenta[i] for i in moving]
            sgd_step(
                [group["params"][i] for i in moving],
                [group["params"][i].grad for i in moving],
                buffers,
                has_sparse_grad=False,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                momentum=self.momentum,
                dampening=0.0,
                nesterov=self.nesterov,
                maximize=False,
            )
            for i, buffer in zip(moving, buffers, strict=True):
                momenta[i] = buffer

    def state_dict(self) -> dict[str, Any]:
        """Return the momentum of each parameter, group by group; None before its first step."""
        return {"momenta": self.momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the momentum that `state_dict` returned."""
        self.momenta = [
            [
                None if value is None else value.to(parameter.device)
                for value, parameter in zip(values, group["params"], strict=True)
            ]
            for values, group in zip(state["momenta"], self.param_groups, strict=True)
        ]


def learning_rate(phase: Phase, epoch: int) -> float:
    """Return the learning rate in `epoch` of the phase (from 0).

    Warm-up: lr * (epoch + 1) / warmup (Cao et al., 2019). Cosine: lr / 2 * (1 + cos(pi * epoch / epochs)), counted
    over the whole phase. Steps: the factor of the last boundary that is not after `epoch`.
    """
    if epoch < phase.warmup:
        return phase.lr * (epoch + 1) / phase.warmup
    if isinstance(phase.decay, dict):
        passed = [boundary for boundary in phase.decay if boundary <= epoch]
        return phase.lr * (phase.decay[max(passed)] if passed else 1.0)
    return phase.lr / 2 * (1 + math.cos(math.pi * epoch / phase.epochs))


def sgd(network: Network, method: Method, phase: Phase, schedule: Schedule) -> SGD | None:
    """Return the phase's optimiser over its trainable parts; None if they have no parameters.

    Raises Refused if the method asks for an option that the loop would not follow.
    """
    own = method.own_group()
    if refused := sorted(set(own) - OWN_OPTIONS):
        raise Refused(
            f"own_group of {type(method).__module__}: {', '.join(refused)} cannot be set; valid: "
            f"{', '.join(sorted(OWN_OPTIONS))} (the learning rate is the phase's)"
        )
    groups: list[dict[str, Any]] = []
    for name, part in network.named_children():
        parameters = list(part.parameters())
        for parameter in parameters:
            parameter.requires_grad_(name in phase.trainable)
        if parameters and name in phase.trainable:
            groups.append({"params": parameters, "lr": phase.lr, **(own if name == "own" else {})})
    decay = schedule.weight_decay if phase.weight_decay is None else phase.weight_decay
    return SGD(groups, schedule.momentum, schedule.nesterov, decay) if groups else None


def set_modes(network: Network, phase: Phase) -> None:
    """Put trainable parts into training mode and frozen ones into eval mode, so their batch-norm statistics stay.

    With the phase's `drift`, frozen parts are in training mode too.
    """
    for name, part in network.named_children():
        part.train(phase.drift or name in phase.trainable)
