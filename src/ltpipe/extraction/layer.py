"""One layer's output in a network's forward pass."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ltpipe.config.spec import Refused

if TYPE_CHECKING:
    from torch import Tensor, nn

# images uint8 B x S x S x 3, on the device -> features float32 B x D
Forward = Callable[["Tensor"], "Tensor"]


def find_layer(network: "nn.Module", layer: str, where: str) -> "nn.Module":
    """Return the module `layer` (dots between levels) of a network.

    Raises Refused, naming the valid modules of the level that is wrong. where: names the network in the message.
    """
    module = network
    for name in layer.split("."):
        children = dict(module.named_children())
        if name not in children:
            raise Refused(f"features: {where}: no layer {layer!r}: no {name!r} among {', '.join(children) or 'none'}")
        module = children[name]
    return module


def capture_output(network: "nn.Module", module: "nn.Module", inputs: bool = False) -> Forward:
    """Return images -> what `module` returns in the network's forward pass, flattened, float32 B x D.

    inputs: capture what the module takes instead. If the module runs several times, the last time counts. The result
    is a copy, because the next operation may work in place.
    """
    captured: dict[str, Any] = {}

    def keep(value: Any) -> None:
        captured["last"] = value.detach().clone() if hasattr(value, "detach") else value

    if inputs:
        module.register_forward_pre_hook(lambda _, taken: keep(taken[0]))
    else:
        module.register_forward_hook(lambda _, taken, output: keep(output))

    def forward(images: "Tensor") -> "Tensor":
        captured.clear()
        network(images)
        value: Any = captured.get("last")
        if getattr(value, "ndim", 0) < 2 or len(value) != len(images):
            raise Refused("features: layer: its output is not one row for each image of a batch; choose another")
        return value.flatten(1).float()

    return forward
