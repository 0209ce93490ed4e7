"""Sharpness-aware minimisation around another optimiser (Foret et al., ICLR 2021).

A step takes the gradient g at the weights w, then the gradient at w + rho g / ||g||, and gives that one to the base
optimiser at w: two forward and backward passes. ||g|| is the norm over all trained parameters. What the first pass has
measured stays: the loss that is logged, batch norm's statistics, and the buffers of a method.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, model_validator

from ltpipe.config.spec import load_item
from ltpipe.optimisers import Options

if TYPE_CHECKING:
    from torch import Tensor


class Config(Options):
    """How far to look, and the optimiser that takes the step."""

    rho: float = Field(0.05, gt=0, description="length of the step to where the second gradient is taken")
    base: str = Field("sgd", description="an optimiser of ltpipe.optimisers, not sam")
    base_options: dict[str, Any] = Field(default_factory=dict, description="options of the base")

    @model_validator(mode="after")
    def _base_fits(self) -> "Config":
        if self.base == "sam":
            raise ValueError("base: sam cannot be around sam")
        try:
            self.inner()
        except ValidationError as error:  # in words of one line: its paths begin inside base_options
            said = "; ".join(f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors())
            raise ValueError(f"base_options of {self.base}: {said.removeprefix(': ')}") from None
        return self

    def module(self) -> ModuleType:
        """Return the module of the base."""
        return load_item("ltpipe.optimisers", self.base)

    def inner(self) -> Options:
        """Return the options of the base."""
        config: Options = self.module().Config.model_validate(self.base_options)
        return config

    def follows(self) -> Mapping[str, Any]:
        return self.inner().follows()

    def modules(self) -> frozenset[str]:
        return super().modules() | {f"ltpipe.optimisers.{self.base}"}


def ascent(config: Config, gradients: "Sequence[Tensor]") -> "list[Tensor]":
    """Return rho g / ||g|| of all parameters together, one tensor for each; 0 if every gradient is 0."""
    import torch

    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    scale = config.rho / (norm + 1e-12)
    return [gradient * scale for gradient in gradients]


def update(
    config: Config,
    group: Mapping[str, Any],
    parameters: "list[Tensor]",
    gradients: "list[Tensor]",
    states: Sequence[dict[str, Any]],
) -> None:
    """Let the base take its step with the second gradient; the states are the base's."""
    config.module().update(config.inner(), group, parameters, gradients, states)
