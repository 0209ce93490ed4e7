"""Stage `fetch`: a source's images, one index row an image, and the notice of its licence."""

from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from ltpipe.data.tables import Table
from ltpipe.specs import Spec, named

PACKAGE = "ltpipe.data.sources"


class Source(Spec):
    """Which images: `name` is a module of ltpipe.data.sources, `options` its Config block."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        named(PACKAGE, name)
        return name

    @model_validator(mode="after")
    def _options(self) -> "Source":
        self.config()
        return self

    def config(self) -> Spec:
        """The options as the source's own Config block."""
        config: Spec = named(PACKAGE, self.name).Config.model_validate(self.options)
        return config

    def modules(self) -> frozenset[str]:
        return frozenset({f"{PACKAGE}.{self.name}"})


def fetch(source: Source) -> tuple[Table, np.ndarray, str]:
    """Index (one row an image), images (uint8, N x H x W x 3, row `r` of the index is image `r`) and licence notice."""
    module = named(PACKAGE, source.name)
    index, images = module.fetch(source.config())
    return index, images, module.NOTICE
