"""Model: the parameter block that chooses a backbone and describes its images."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, ValidationError, model_validator

from ltpipe.config.spec import MenuItem, Refused, in_options, load_item, menu_names, parse

if TYPE_CHECKING:
    from torch import Tensor

# The keys that one run may change; the images are the same for all runs.
OF_A_RUN = ("backbone", "options", "head_bias")
OF_IMAGES = ("image", "mean", "std")
Channel = Annotated[float, Field(ge=0, le=1)]


class Model(MenuItem):
    """The network without its classifier, and its input images. mean and std become part of the exported graph."""

    menu: ClassVar[str] = "ltpipe.backbones"
    field: ClassVar[str] = "backbone"

    backbone: str = Field(description="a module of ltpipe.backbones")
    image: int = Field(gt=0, description="height and width of the network's images, in pixels; timm: has its own")
    mean: tuple[Channel, Channel, Channel] = Field(
        (0.5, 0.5, 0.5), description="mean of each channel, pixels in 0..1; timm: has its own"
    )
    std: tuple[Channel, Channel, Channel] = Field(
        (0.25, 0.25, 0.25), description="standard deviation of each channel, pixels in 0..1; timm: has its own"
    )

    head_bias: bool = Field(True, description="linear classifiers have a bias; those of methods without one never do")

    @model_validator(mode="before")
    @classmethod
    def _inputs_of_its_own(cls, value: Any) -> Any:
        """Fill in what the benchmark leaves to a network that knows its images (which imports its library)."""
        own = _module_of(value)
        if not hasattr(own, "inputs") or all(key in value for key in OF_IMAGES):
            return value
        try:
            return own.inputs(own.Config.model_validate(value.get("options", {}))) | dict(value)
        except ValidationError as error:
            raise in_options(error) from None
        except Refused as refused:
            raise ValueError(refused.message) from None

    @model_validator(mode="after")
    def _std_is_positive(self) -> "Model":
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        return self

    def with_changes(self, changes: Mapping[str, Any]) -> "Model":
        """Return this block with the network that one run has instead; the same changes a second time have no effect.

        changes: any of `backbone`, `options` and `head_bias`. Within `options` only the stated ones are replaced; with
        another backbone, all. Raises Refused if a key is unknown or belongs to the images, or a value is not valid.
        """
        if wrong := sorted(set(changes) - set(OF_A_RUN)):
            raise Refused(f"model: {', '.join(wrong)} cannot be changed for one run; valid keys: {', '.join(OF_A_RUN)}")
        merged = self.model_dump() | dict(changes)
        if merged["backbone"] == self.backbone and isinstance(merged["options"], Mapping):
            merged["options"] = self.options | dict(merged["options"])
        elif "options" not in changes:
            merged["options"] = {}
        return parse(Model, merged, "model")

    def find_weights(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the file of the weights that the backbone starts from, and facts of it; None: random weights."""
        find = getattr(self.module(), "find_weights", None)
        found: tuple[Path, dict[str, Any]] | None = find(self.config()) if find else None
        return found

    def load_weights(self, path: Path, branches: int) -> "dict[str, Tensor]":
        """Return the weights in that file, by the names of a backbone with so many branches."""
        weights: dict[str, Tensor] = self.module().load_weights(self.config(), path, branches, self.image)
        return weights

    def unlike_pretraining(self) -> list[str]:
        """Return in what the images differ from those that the weights were trained on: mean, std; [] if in nothing."""
        own = getattr(self.module(), "inputs", None)
        trained: dict[str, Any] = own(self.config()) if own and self.seen() else {}
        return [
            f"{key} {list(getattr(self, key))}, not {list(trained[key])}"
            for key in ("mean", "std")
            if key in trained
            and not all(abs(a - b) < 1e-3 for a, b in zip(getattr(self, key), trained[key], strict=True))
        ]

    def seen(self) -> str | None:
        """Return what the weights that the backbone starts from have been trained on; None: random weights."""
        seen: Any = getattr(self.config(), "seen", None)
        return seen() if seen else None


def _module_of(value: Any) -> Any:
    """Return the backbone that a block chooses; None if it chooses none that exists."""
    name = value.get(Model.field) if isinstance(value, Mapping) else None
    return load_item(Model.menu, name) if name in menu_names(Model.menu) else None
