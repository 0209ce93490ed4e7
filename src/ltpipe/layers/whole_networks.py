"""Networks of timm side by side, without a common trunk."""

from typing import Any

from torch import nn

from ltpipe.layers.branches import Branches


class WholeNetworks(Branches):
    """Map images B x 3 x H x W to features: B x D with one network, B x E x D with E of them."""

    def __init__(self, networks: list[nn.Module], features: int) -> None:
        super().__init__(nn.Identity(), networks, features)

    def layers(self) -> list[list[nn.Module]]:
        """Return the layers with parameters in their order from the image on, as timm states it.

        Networks lie side by side. A layer is a list of parameters, because tokens and position embeddings of a ViT are
        in no module of their own.
        """
        return [list(level) for level in zip(*map(_layers, self.branches), strict=True)]


def _layers(network: Any) -> list[nn.Module]:
    """Return the parameters of each layer of timm's network, from the image on."""
    from timm.models import group_parameters

    groups = group_parameters(network, network.group_matcher(coarse=False))
    return [nn.ParameterList(network.get_parameter(name) for name in groups[number]) for number in sorted(groups)]
