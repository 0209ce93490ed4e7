"""Stage `fetch`: an index of a source's images and the notice of its licence; and packing of the chosen images."""

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, field_validator, model_validator

from ltpipe.data.notice import keep
from ltpipe.data.tables import Table
from ltpipe.specs import Refused, Spec, named

PACKAGE = "ltpipe.data.sources"
COLUMNS = ("image", "source", "file", "label", "class_name", "attribute", "official")

# bytes of images that `pack` holds in memory at once
IN_MEMORY = 1 << 30

log = logging.getLogger("ltpipe.data")


class Source(Spec):
    """Which images: `name` is a module of ltpipe.data.sources, `options` its Config block.

    size: height and width to which images are brought when they are packed.
    """

    name: str
    size: int = Field(gt=0)
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


def fetch(source: Source, raw: Path) -> tuple[Table, str]:
    """Index of the source's images and the notice of its licence; files, if any, are fetched into `raw`.

    Index columns: image (unique name), source (the original image it was made from), file (path below `raw`, or row of
    the source's own array), label (from 0), class_name, attribute (-1: none known), official (train, val, test or "":
    the split that the source's authors put it in).
    """
    module = named(PACKAGE, source.name)
    index: Table = module.fetch(source.config(), raw)
    if list(index.columns) != list(COLUMNS):
        raise TypeError(f"{module.__name__}.fetch: columns {list(index.columns)}, not {list(COLUMNS)}")
    log.info("%s: %d images of %d classes", source.name, len(index), index["label"].nunique())
    keep(module.NOTICE, source.name, raw)
    return index, module.NOTICE


class Images(NamedTuple):
    """The images behind an index: the source that reads them, and the folder of its files."""

    source: Source
    raw: Path

    def read(self, files: Sequence[str], size: int) -> np.ndarray:
        """The images of the index's `file` values, uint8, N x size x size x 3."""
        found: np.ndarray = named(PACKAGE, self.source.name).read(self.source.config(), self.raw, files, size)
        if found.shape != (len(files), size, size, 3) or found.dtype != np.uint8:
            raise TypeError(f"{self.source.name}.read: {found.dtype} {found.shape}, not uint8 images of size {size}")
        return found

    def pack(self, files: Sequence[str], size: int) -> np.ndarray:
        """As `read`, for any number of files: more than IN_MEMORY bytes are decoded in parts and mapped (`space`)."""
        each = size * size * 3
        if len(files) * each <= IN_MEMORY:
            return self.read(files, size)
        shape = (len(files), size, size, 3)
        # once here, once where the array is saved
        found = space(f"{len(files)} images of size {size}", shape, np.uint8, self.raw.parent, copies=2)
        step = max(IN_MEMORY // each, 1)
        for start in range(0, len(files), step):
            log.info("%s: packing from image %d of %d", self.source.name, start, len(files))
            found[start : start + step] = self.read(files[start : start + step], size)
        return found


def pack(manifest: Table, source: Source, raw: Path) -> np.ndarray:
    """The manifest's images, uint8, N x size x size x 3: image of row r of the manifest's column `row` is number r.

    Decoded once here, so that training never opens an image file. More than IN_MEMORY bytes are mapped from a nameless
    file beside `raw`, which is gone with the array.
    """
    files = manifest.drop_duplicates("row").sort_values("row")["file"].tolist()
    return Images(source, raw).pack(files, source.size)


def space(what: str, shape: tuple[int, ...], dtype: type[np.generic], folder: Path, copies: int = 1) -> np.ndarray:
    """An array to be filled: in memory, or, of more than IN_MEMORY bytes, mapped from a nameless file in `folder`.

    Raises Refused, naming `what`, where there is no room for `copies` of it.
    """
    if math.prod(shape) * np.dtype(dtype).itemsize <= IN_MEMORY:
        return np.empty(shape, dtype)
    folder = folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    room(what, math.prod(shape) * np.dtype(dtype).itemsize, folder, copies)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def room(what: str, wanted: int, folder: Path, copies: int = 1) -> None:
    """Raise Refused where `folder` has no room for `copies` of `wanted` bytes."""
    if copies * wanted > (free := shutil.disk_usage(folder).free):
        raise Refused(f"{what} need {copies} x {wanted:,} bytes in {folder}, {free:,} are free")
