"""Model: the block that names a backbone and says what its images look like."""

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from ltpipe.specs import Spec, named

PACKAGE = "ltpipe.models.backbones"
Channel = Annotated[float, Field(ge=0, le=1)]


class Model(Spec):
    """`backbone` is a module of ltpipe.models.backbones, `options` its Config block.

    mean, std: per channel, of pixels in 0..1; they go into the exported graph.
    """

    backbone: str
    options: dict[str, Any] = Field(default_factory=dict)
    image: int = Field(gt=0, description="height and width of an image")
    mean: tuple[Channel, Channel, Channel] = (0.5, 0.5, 0.5)
    std: tuple[Channel, Channel, Channel] = (0.25, 0.25, 0.25)

    @field_validator("backbone")
    @classmethod
    def _exists(cls, backbone: str) -> str:
        named(PACKAGE, backbone)
        return backbone

    @model_validator(mode="after")
    def _options(self) -> "Model":
        self.config()
        if min(self.std) <= 0:
            raise ValueError("std must be positive")
        return self

    def config(self) -> Spec:
        """The options as the backbone's own Config block."""
        config: Spec = named(PACKAGE, self.backbone).Config.model_validate(self.options)
        return config

    def modules(self) -> frozenset[str]:
        return frozenset({f"{PACKAGE}.{self.backbone}"})
