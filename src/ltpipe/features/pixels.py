"""The benchmark's own images, small: needs no network, sees colour and layout only."""

from pathlib import Path

import numpy as np
from pydantic import Field

from ltpipe.data.fetch import Images
from ltpipe.data.tables import Table
from ltpipe.specs import Spec


class Config(Spec):
    """size: height and width to which images are brought; sources of one size (cifar10, digits) know no other."""

    size: int = Field(16, gt=0)


def extract(config: Config, index: Table, rows: np.ndarray, images: Images, cache: Path | None) -> np.ndarray:
    """Pixels of `rows`, uint8, N x (size * size * 3)."""
    return images.pack(index["file"].iloc[rows].tolist(), config.size).reshape(len(rows), -1)
