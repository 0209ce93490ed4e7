"""The optimiser of a phase around the functions of a module of ltpipe.optimisers, and the learning rate of a step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ltpipe.interface.method import Method
from ltpipe.interface.phases import Phase
from ltpipe.models.network import Network
from ltpipe.recipe import choices
from ltpipe.recipe.schedule import FOLLOWED, Schedule
from ltpipe.training import groups


class Optimiser:
    """Groups of parameters with their states, changed by an optimiser's pure functions."""

    def __init__(
        self, choice: choices.OptimiserChoice, param_groups: list[dict[str, Any]], clip_norm: float | None = None
    ) -> None:
        self.name, self.module, self.config = choice.optimiser, choice.module(), choice.config()
        self.param_groups, self.clip_norm = param_groups, clip_norm
        self.states: list[list[dict[str, Any]]] = [[{} for _ in group["params"]] for group in param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def set_lr(self, lr: float) -> None:
        """Set the learning rate; each group's has its own factor."""
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    @torch.no_grad()
    def step(self, again: Callable[[], None]) -> None:
        """Take one step with the gradients of the parameters; those without a gradient stay.

        again: computes the gradients once more, at the parameters of that time; only some optimisers call it.
        """
        if hasattr(self.module, "ascent"):
            with self._ahead(), torch.enable_grad():
                again()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._moving(), self.clip_norm)
        for group, states in zip(self.param_groups, self.states, strict=True):
            gradients = [parameter.grad for parameter in group["params"]]
            moving = [i for i, gradient in enumerate(gradients) if gradient is not None]
            parts = ([values[i] for i in moving] for values in (group["params"], gradients, states))
            self.module.update(self.config, group, *parts)

    def _moving(self) -> list[nn.Parameter]:
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    @contextmanager
    def _ahead(self) -> Iterator[None]:
        """Put the parameters where the second gradient is taken, without gradients, and back again, to the bit."""
        moving = self._moving()
        kept = [parameter.clone() for parameter in moving]
        for parameter, offset in zip(moving, self.module.ascent(self.config, [p.grad for p in moving]), strict=True):
            parameter.add_(offset)
        self.zero_grad()
        yield
        for parameter, value in zip(moving, kept, strict=True):
            parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's name and the state of each parameter, group by group."""
        return {"name": self.name, "states": self.states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with what `state_dict` returned. Raises ValueError if it is of another optimiser or network."""
        if state["name"] != self.name:
            raise ValueError(f"its optimiser is {state['name']}, not {self.name}")
        self.states = [
            [
                {key: _placed(key, value, parameter) for key, value in kept.items()}
                for kept, parameter in zip(states, group["params"], strict=True)
            ]
            for states, group in zip(state["states"], self.param_groups, strict=True)
        ]


def _placed(key: str, value: Any, parameter: Tensor) -> Any:
    """Return a value of a state on the parameter's device; counters stay on the CPU, where torch reads them."""
    return value.to(parameter.device) if isinstance(value, Tensor) and key != "step" else value


def build(network: Network, method: Method, phase: Phase, schedule: Schedule) -> Optimiser | None:
    """Return the phase's optimiser over its trainable parts; None if they have no parameters.

    Raises Refused if the method asks for an option that the loop would not follow.
    """
    follows = {key: getattr(schedule, key) for key in FOLLOWED}
    made = [{**group, **follows} for group in groups.build(network, method, phase, schedule)]
    if not made:
        return None
    optimizer = Optimiser(schedule.chosen_optimiser(), made, schedule.clip_norm)
    optimizer.set_lr(phase.lr)
    return optimizer


def learning_rate(phase: Phase, epoch: int, step: int = 0, steps: int = 1) -> float:
    """Return the learning rate in `epoch` of the phase (from 0), at `step` (from 0) of the epoch's `steps`.

    Warm-up: lr * (n + 1) / w at position n of w (Cao et al., 2019). Then lr times the rule's factor, counted over the
    whole phase. Positions are epochs, or with lr_every: step, steps.
    """
    unit = steps if phase.lr_every == "step" else 1
    at = epoch * unit + (step if phase.lr_every == "step" else 0)
    warmup = round(phase.warmup * unit)
    if at < warmup:
        return phase.lr * (at + 1) / warmup
    return phase.lr * phase.decay.factor(at, phase.epochs * unit, unit)


def set_modes(network: Network, phase: Phase) -> None:
    """Put trainable parts into training mode and frozen ones into eval mode, so their batch-norm statistics stay.

    With the phase's `drift`, frozen parts are in training mode too.
    """
    for name, part in network.named_children():
        part.train(phase.drift or name in phase.trainable)
