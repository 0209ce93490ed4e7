"""Parameter groups: which learning rate and weight decay each parameter has.

A method may ask for options of its own parameters. What it asks for holds, or is refused if the recipe says it too.
"""

from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from ltpipe.config.spec import Refused
from ltpipe.interface.method import Method
from ltpipe.interface.phases import Phase
from ltpipe.models.network import Network
from ltpipe.recipe.schedule import Part, PartName, Schedule

# What a method may set for its own parameters.
OWN_OPTIONS = {"weight_decay", "lr_scale"}


def build(network: Network, method: Method, phase: Phase, schedule: Schedule) -> list[dict[str, Any]]:
    """Return the groups of the phase's trainable parts, and freeze the other parts.

    A group: params, lr_scale, weight_decay. Raises Refused if the method asks for what cannot be set, if method and
    recipe both set one thing, or if the backbone does not state the order of its layers, and it is needed.
    """
    _check(method, phase, schedule)
    groups: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for name, part in network.named_children():
        for parameter in part.parameters():
            parameter.requires_grad_(name in phase.trainable)
        if name in phase.trainable:
            for parameter, lr_scale, decay in _options(name, part, method, phase, schedule):
                groups.setdefault((name, lr_scale, decay), []).append(parameter)
    return [
        {"params": params, "lr_scale": scale, "weight_decay": decay} for (_, scale, decay), params in groups.items()
    ]


def _check(method: Method, phase: Phase, schedule: Schedule) -> None:
    """Raise Refused if the method asks for an unknown option, or if the recipe's `parts` would overwrite its own."""
    who, asked = f"{type(method).__module__}", method.own_group()
    if unknown := sorted(set(asked) - OWN_OPTIONS):
        raise Refused(
            f"own_group of {who}: {', '.join(unknown)} cannot be set; valid: {', '.join(sorted(OWN_OPTIONS))} "
            "(the learning rate is the phase's)"
        )
    for name, part in schedule.parts.items():
        stated = {key for key in OWN_OPTIONS if getattr(part, key) != getattr(Part(), key)}
        taken = set(asked) if name == "own" else set()
        if phase.weight_decay is not None and name in phase.trainable:
            taken |= {"weight_decay"}
        if both := sorted(stated & taken):
            raise Refused(f"schedule.parts.{name}: {', '.join(both)} is set by {who} itself; leave it out")


def _options(
    name: str, part: nn.Module, method: Method, phase: Phase, schedule: Schedule
) -> Iterator[tuple[nn.Parameter, float, float]]:
    """Yield each parameter of a part with its factor of lr and its weight decay."""
    stated, asked = schedule.parts.get(cast("PartName", name), Part()), method.own_group() if name == "own" else {}
    decay = schedule.weight_decay if phase.weight_decay is None else phase.weight_decay
    decay = asked.get("weight_decay", decay if stated.weight_decay is None else stated.weight_decay)
    spared = set() if schedule.decay_norms_and_biases or "weight_decay" in asked else set(norms_and_biases(part))
    scales = layer_scales(part, schedule.layer_decay) if name == "backbone" and schedule.layer_decay != 1 else {}
    for parameter in part.parameters():
        scale = asked.get("lr_scale", stated.lr_scale) * scales.get(parameter, 1.0)
        yield parameter, scale, 0.0 if parameter in spared else decay


def norms_and_biases(part: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of norm layers and the biases: as timm does, all that have at most one dimension."""
    for name, parameter in part.named_parameters():
        if parameter.ndim <= 1 or name.endswith("bias"):
            yield parameter


def layer_scales(backbone: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return decay^(L + 1 - i) for each parameter of layer i (from 1) of the backbone's L layers.

    As in BEiT (Bao et al., ICLR 2022). Raises Refused if the backbone does not state its layers, or not all of them.
    """
    kind, order = type(backbone).__name__, getattr(backbone, "layers", None)
    if not callable(order):
        raise Refused(f"schedule.layer_decay: the backbone ({kind}) does not state the order of its layers")
    layers: list[list[nn.Module]] = order()
    scales = {
        parameter: decay ** (len(layers) - number)
        for number, layer in enumerate(layers)
        for module in layer
        for parameter in module.parameters()
    }
    if missing := [name for name, parameter in backbone.named_parameters() if parameter not in scales]:
        raise Refused(f"schedule.layer_decay: {missing[0]} is in no layer of the backbone ({kind})")
    return scales
