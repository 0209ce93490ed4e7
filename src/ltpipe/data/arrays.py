"""Arrays that may be larger than memory, and the room that they need on disk."""

import math
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from ltpipe.config.spec import Refused

# An array of more bytes than this is mapped from a file.
IN_MEMORY = 1 << 30


def allocate(what: str, shape: tuple[int, ...], dtype: type[np.generic], folder: Path, copies: int = 1) -> np.ndarray:
    """Return an array to fill: in memory, or, above IN_MEMORY bytes, mapped from an unnamed file in `folder`.

    The file disappears with the array. Raises Refused, naming `what`, if there is no room for `copies` of it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.empty(shape, dtype)
    folder = folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())
    require_disk_space(what, size, folder, copies)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def require_disk_space(what: str, size: int, folder: Path, copies: int = 1) -> None:
    """Raise Refused if `folder` has no room for `copies` of `size` bytes."""
    if copies * size > (free := shutil.disk_usage(folder).free):
        raise Refused(f"{what} need {copies} x {size:,} bytes in {folder}, {free:,} are free")
