"""The pixels of the benchmark's images at a small size: no network is needed, and only colour and layout count."""

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.extraction.passage import Given
from ltpipe.storage.table import Table


class Config(Spec):
    """The size of the small images."""

    size: int = Field(
        16,
        gt=0,
        description="height and width after resizing, in pixels; a source with a fixed size (cifar10, digits) "
        "accepts only that size",
    )


def extract(config: Config, index: Table, rows: np.ndarray, given: Given) -> np.ndarray:
    """Return the pixels of `rows`, uint8, N x (size * size * 3)."""
    return given.images.read_many(index["file"].iloc[rows].tolist(), config.size).reshape(len(rows), -1)
