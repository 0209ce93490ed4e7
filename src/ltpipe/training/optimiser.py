"""SGD over the trainable parts, and the learning rate of an epoch."""

import math
from typing import Any

import torch

from ltpipe.interface.method import Method
from ltpipe.interface.phases import Phase
from ltpipe.models.network import Network
from ltpipe.recipe.schedule import Schedule


def rate(phase: Phase, epoch: int) -> float:
    """Learning rate in `epoch` of the phase (from 0).

    Warm-up: lr * (epoch + 1) / warmup (Cao et al., 2019). Cosine: lr / 2 * (1 + cos(pi * epoch / epochs)), counted
    over the whole phase. Steps: the factor of the last boundary that is not after `epoch`.
    """
    if epoch < phase.warmup:
        return phase.lr * (epoch + 1) / phase.warmup
    if isinstance(phase.decay, dict):
        passed = [boundary for boundary in phase.decay if boundary <= epoch]
        return phase.lr * (phase.decay[max(passed)] if passed else 1.0)
    return phase.lr / 2 * (1 + math.cos(math.pi * epoch / phase.epochs))


def sgd(network: Network, method: Method, phase: Phase, schedule: Schedule) -> torch.optim.SGD | None:
    """The phase's optimiser over its trainable parts; None where they have no parameters."""
    groups: list[dict[str, Any]] = []
    for name, part in network.named_children():
        parameters = list(part.parameters())
        for parameter in parameters:
            parameter.requires_grad_(name in phase.trainable)
        if parameters and name in phase.trainable:
            groups.append({"params": parameters, **(method.own_group() if name == "own" else {})})
    if not groups:
        return None
    return torch.optim.SGD(
        groups,
        lr=phase.lr,
        momentum=schedule.momentum,
        nesterov=schedule.nesterov,
        weight_decay=schedule.weight_decay,
    )


def set_modes(network: Network, phase: Phase) -> None:
    """Trainable parts in training mode, frozen ones in eval mode: their batch-norm statistics stay as they are.

    With the phase's `drift` they are in training mode all the same.
    """
    for name, part in network.named_children():
        part.train(phase.drift or name in phase.trainable)
