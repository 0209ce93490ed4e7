"""No features: the index's column `attribute` is the cluster."""

from pathlib import Path

import numpy as np

from ltpipe.data.fetch import Images
from ltpipe.data.tables import Table
from ltpipe.specs import Spec


class Config(Spec):
    """Nothing to choose."""


def extract(config: Config, index: Table, rows: np.ndarray, images: Images, cache: Path | None) -> np.ndarray:
    """The attribute of each of `rows`, int64, N; -1 where the index knows none."""
    attribute: np.ndarray = index["attribute"].to_numpy(dtype=np.int64)[rows]
    return attribute
