"""Stage `fetch`: an index of a source's images and the notice of its licence; and packing of the chosen images."""

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

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
    log.info(
        "%s: %d images of %d classes. %s", source.name, len(index), index["label"].nunique(), module.NOTICE.strip()
    )
    return index, module.NOTICE


def pack(manifest: Table, source: Source, raw: Path) -> np.ndarray:
    """The manifest's images, uint8, N x size x size x 3: image of row r of the manifest's column `row` is number r.

    Decoded once here, so that training never opens an image file. More than IN_MEMORY bytes are mapped from a nameless
    file beside `raw`, which is gone with the array.
    """
    files = manifest.drop_duplicates("row").sort_values("row")["file"].tolist()
    each = source.size * source.size * 3
    if len(files) * each <= IN_MEMORY:
        return _read(source, raw, files)
    images = _mapped((len(files), source.size, source.size, 3), raw)
    step = max(IN_MEMORY // each, 1)
    for start in range(0, len(files), step):
        log.info("%s: packing from image %d of %d", source.name, start, len(files))
        images[start : start + step] = _read(source, raw, files[start : start + step])
    return images


def _mapped(shape: tuple[int, ...], raw: Path) -> np.ndarray:
    folder = raw.parent if os.access(raw.parent, os.W_OK) else Path(tempfile.gettempdir())
    wanted, free = math.prod(shape), shutil.disk_usage(folder).free
    if 2 * wanted > free:  # once here, once where the array is saved
        raise Refused(f"{shape[0]} images of size {shape[1]} need 2 x {wanted:,} bytes in {folder}, {free:,} are free")
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _read(source: Source, raw: Path, files: Sequence[str]) -> np.ndarray:
    images: np.ndarray = named(PACKAGE, source.name).read(source.config(), raw, files, source.size)
    if images.shape != (len(files), source.size, source.size, 3) or images.dtype != np.uint8:
        raise TypeError(f"{source.name}.read: {images.dtype} {images.shape}, not uint8 images of size {source.size}")
    return images
