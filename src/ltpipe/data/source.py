"""Source: the parameter block that chooses where images come from; and SourceImages, which reads them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import MenuItem
from ltpipe.data import arrays

log = logging.getLogger("ltpipe.data")


class Source(MenuItem):
    """Which images, the size at which they are packed, and what training takes its random boxes from."""

    menu: ClassVar[str] = "ltpipe.data.sources"

    name: str = Field(description="a module of ltpipe.data.sources")
    size: int = Field(
        gt=0,
        description="height and width of the packed squares: the shorter side is resized to it, and the centre is kept",
    )
    pictures: Literal["squares", "packed", "files"] = Field(
        "squares",
        description="what random boxes are taken from: squares, those that are packed; packed, whole pictures, packed "
        "at `shorter_side`; files, the original files, as the usual data loader does",
    )
    shorter_side: int | None = Field(
        None, gt=0, description="with pictures: packed, their shorter side in pixels; smaller pictures stay as they are"
    )

    @model_validator(mode="after")
    def _shorter_side_is_packed(self) -> "Source":
        if (self.pictures == "packed") != (self.shorter_side is not None):
            raise ValueError(
                f"pictures: packed needs shorter_side, and nothing else takes it: pictures is {self.pictures}, "
                f"shorter_side is {self.shorter_side}"
            )
        return self

    def reads_outside(self) -> bool:
        """Tell whether the images may lie in a folder of the user, which can change at any time."""
        return hasattr(self.module(), "VARIABLE") or hasattr(self.module(), "DATASET")


class SourceImages(NamedTuple):
    """The images of an index: the source that reads them, and the folder `raw` of its files."""

    source: Source
    raw: Path

    def read(self, files: Sequence[str], size: int) -> np.ndarray:
        """Return the images of the index's `file` values, uint8, N x size x size x 3."""
        images: np.ndarray = self.source.module().read_images(self.source.config(), self.raw, files, size)
        if images.shape != (len(files), size, size, 3) or images.dtype != np.uint8:
            raise TypeError(
                f"{self.source.name}.read_images: {images.dtype} {images.shape}, not uint8 images of size {size}"
            )
        return images

    def read_many(self, files: Sequence[str], size: int) -> np.ndarray:
        """Return the same as `read`, for any number of files: a large result is decoded in parts and mapped."""
        each = size * size * 3
        if len(files) * each <= arrays.IN_MEMORY:
            return self.read(files, size)
        shape = (len(files), size, size, 3)
        # two copies: this one, and the one that the catalog saves
        images = arrays.allocate(f"{len(files)} images of size {size}", shape, np.uint8, self.raw.parent, copies=2)
        step = max(arrays.IN_MEMORY // each, 1)
        for start in range(0, len(files), step):
            log.info("%s: packing from image %d of %d", self.source.name, start, len(files))
            images[start : start + step] = self.read(files[start : start + step], size)
        return images
