"""Node `pack`: the images of a manifest, decoded once into one array, which training on squares and evaluation read."""

from pathlib import Path

import numpy as np

from ltpipe.data.source import Source, SourceImages
from ltpipe.storage.table import Table


def pack(manifest: Table, source: Source, raw: Path) -> np.ndarray:
    """Return the manifest's images, uint8, N x size x size x 3, in the order of the manifest's column `row`.

    A large array is mapped from an unnamed file beside `raw` (see ltpipe.data.arrays).
    """
    files = manifest.drop_duplicates("row").sort_values("row")["file"].tolist()
    return SourceImages(source, raw).read_many(files, source.size)
