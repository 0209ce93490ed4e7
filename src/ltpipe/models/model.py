"""Model: the parameter block that chooses a backbone and describes its images."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ltpipe.config.spec import MenuItem, Refused, parse

# The keys that one run may change; the images are the same for all runs.
OF_A_RUN = ("backbone", "options", "head_bias")
Channel = Annotated[float, Field(ge=0, le=1)]


class Model(MenuItem):
    """The network without its classifier, and its input images. mean and std become part of the exported graph."""

    menu: ClassVar[str] = "ltpipe.backbones"
    field: ClassVar[str] = "backbone"

    backbone: str = Field(description="a module of ltpipe.backbones")
    image: int = Field(gt=0, description="height and width of the network's images, in pixels")
    mean: tuple[Channel, Channel, Channel] = Field((0.5, 0.5, 0.5), description="mean of each channel, pixels in 0..1")
    std: tuple[Channel, Channel, Channel] = Field(
        (0.25, 0.25, 0.25), description="standard deviation of each channel, pixels in 0..1"
    )

    head_bias: bool = Field(True, description="linear classifiers have a bias; those of methods without one never do")

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
