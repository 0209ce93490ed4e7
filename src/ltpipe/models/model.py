"""Model: the parameter block that chooses a backbone and describes its images."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from ltpipe.config.spec import MenuItem

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

    @model_validator(mode="after")
    def _std_is_positive(self) -> "Model":
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        return self
