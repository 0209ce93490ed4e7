"""What the sources cifar10 and cifar100 share: A. Krizhevsky's binary archives, records of labels and pixels.

A record is one label byte (CIFAR-100: two, coarse and fine) and 3,072 pixels, channel by channel, rows of 32. The
python archives are pickles and are never read. That both archives have the same order of images, on which published
long-tailed subsets depend, is what the dataset's page implies; it cannot be checked without the pickles.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.data.acquire.download import Remote, get
from ltpipe.data.acquire.unpack import unpack
from ltpipe.storage.table import Table

SIZE = 32
PIXELS = 3 * SIZE * SIZE


class Layout(NamedTuple):
    """Where an archive keeps what. labels: label bytes of a record, the last one is the class."""

    remote: Remote
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    labels: int


def index(layout: Layout, raw: Path) -> Table:
    """One row an image, in the order of the files; `file` is the row among all of them."""
    import pandas as pd

    folder = unpack(_archive(layout, raw), layout.folder)
    names = _names(folder / layout.names)
    parts = {file: _records(folder / file, layout)[:, layout.labels - 1] for file in (*layout.train, layout.test)}
    labels = np.concatenate(list(parts.values())).astype(np.int64)
    if labels.max(initial=0) >= len(names):
        raise Refused(f"{folder}: label {labels.max()}, but {layout.names} names {len(names)} classes")
    rows = [f"{split}{i:05d}" for split, count in _splits(layout, parts).items() for i in range(count)]
    return pd.DataFrame(
        {
            "image": rows,
            "source": rows,
            "file": [str(row) for row in range(len(labels))],
            "label": labels,
            "class_name": [names[label] for label in labels],
            "attribute": np.int64(-1),
            "official": [row[:-5] for row in rows],
        }
    )


def _archive(layout: Layout, raw: Path) -> Path:
    """The archive's path; it is not fetched where its folder is there already."""
    path = raw / layout.remote.name
    return path if (raw / layout.folder).is_dir() else get(layout.remote, raw)


def _splits(layout: Layout, parts: dict[str, np.ndarray]) -> dict[str, int]:
    return {"train": sum(len(parts[file]) for file in layout.train), "test": len(parts[layout.test])}


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise Refused(f"{path} is missing: delete the folder, it is unpacked again")
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _records(path: Path, layout: Layout) -> np.ndarray:
    """The file's records, uint8, N x (labels + pixels), mapped."""
    length = layout.labels + PIXELS
    size = path.stat().st_size if path.is_file() else 0
    if not size or size % length:
        raise Refused(f"{path}: {size} bytes, not records of {length}; delete the folder, it is unpacked again")
    return np.memmap(path, np.uint8, "r", shape=(size // length, length))


def images(layout: Layout, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """The images of `files`, uint8, N x 32 x 32 x 3."""
    if size != SIZE:
        raise Refused(f"the images of {layout.folder} are {SIZE} x {SIZE}; size cannot be {size}")
    folder, rows = raw / layout.folder, np.array([int(file) for file in files], dtype=np.int64)
    chosen, first = np.empty((len(rows), PIXELS), np.uint8), 0
    for file in (*layout.train, layout.test):
        records = _records(folder / file, layout)
        here = (rows >= first) & (rows < first + len(records))
        chosen[here] = records[rows[here] - first, layout.labels :]
        first += len(records)
    if len(rows) and (rows.min() < 0 or rows.max() >= first):
        raise Refused(f"{folder} holds images 0 to {first - 1}, not {rows.max()}")
    return np.ascontiguousarray(chosen.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))
