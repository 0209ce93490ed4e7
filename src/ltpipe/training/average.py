"""An exponential moving average of the weights, which is validated and exported in their place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ltpipe.models.network import Network


def share(decay: float, step: int) -> float:
    """Return what step number `step` (from 1) keeps of the average: `decay`, and less of it at first.

    min(decay, (1 + step) / (10 + step)), so that the random weights of the beginning are soon forgotten.
    """
    return min(decay, (1 + step) / (10 + step))


class Average:
    """The average of all parameters and of the statistics of norm layers.

    What the method keeps in buffers of its own (priors, centres) is not averaged: it stays as the method set it.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network, self.decay, self.steps = network, decay, 0
        self.values = {name: value.detach().clone() for name, value in self._present().items()}

    def _present(self) -> dict[str, Tensor]:
        """Return what is averaged, as it is in the network: name -> tensor, in a fixed order."""
        found = dict(self.network.named_parameters())
        buffers = {n: b for n, b in self.network.named_buffers() if not n.startswith("own.") and b.is_floating_point()}
        return found | buffers

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the network, after a step."""
        self.steps += 1
        weight = 1 - share(self.decay, self.steps)
        torch._foreach_lerp_(list(self.values.values()), list(self._present().values()), weight)

    @torch.no_grad()
    def give(self) -> None:
        """Put the average into the network."""
        for name, value in self._present().items():
            value.copy_(self.values[name])

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average into the network for a while, and the network's own values back, to the bit."""
        kept = {name: value.detach().clone() for name, value in self._present().items()}
        self.give()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in self._present().items():
                    value.copy_(kept[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the average and its number of steps."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises ValueError if it is of another network."""
        if {n: v.shape for n, v in state["values"].items()} != {n: v.shape for n, v in self.values.items()}:
            raise ValueError("its average is of another network")
        self.steps = state["steps"]
        for name, value in self.values.items():
            value.copy_(state["values"][name])
