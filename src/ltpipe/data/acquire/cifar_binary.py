"""Code shared by the sources cifar10 and cifar100: read A. Krizhevsky's binary archives.

A record holds one label byte (CIFAR-100: two, coarse and fine) and 3,072 pixel bytes, channel by channel, in rows of
32. The official python archives are pickles and are never read. The dataset's page implies that both kinds of archive
have the same order of images, on which published long-tailed subsets depend; without the pickles this cannot be
checked.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.data.acquire.download import Remote, fetch_file
from ltpipe.data.acquire.unpack import unpack
from ltpipe.storage.table import Table

SIZE = 32
PIXELS = 3 * SIZE * SIZE


class Layout(NamedTuple):
    """The files of an archive. label_bytes: label bytes of a record; the last one is the class."""

    remote: Remote
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    label_bytes: int


def build_cifar_index(layout: Layout, raw: Path) -> Table:
    """Return one row per image, in the order of the files; `file` is the position among all images.

    Downloads and unpacks the archive if its folder is missing. Raises Refused if a file is damaged, or if a label has
    no class name.
    """
    import pandas as pd

    folder = unpack(_fetch_archive(layout, raw), layout.folder)
    names = _read_class_names(folder / layout.names)
    # the records are mapped from the file: only the label bytes are read here
    parts = {
        file: _map_records(folder / file, layout)[:, layout.label_bytes - 1] for file in (*layout.train, layout.test)
    }
    labels = np.concatenate(list(parts.values())).astype(np.int64)
    if labels.max(initial=0) >= len(names):
        raise Refused(f"{folder}: label {labels.max()}, but {layout.names} names {len(names)} classes")
    images = [f"{split}{i:05d}" for split, count in _split_sizes(layout, parts).items() for i in range(count)]
    return pd.DataFrame(
        {
            "image": images,
            "source": images,
            "file": [str(row) for row in range(len(labels))],
            "label": labels,
            "class_name": [names[label] for label in labels],
            "attribute": np.int64(-1),
            "official": [image[:-5] for image in images],  # the name without its five digits: train or test
        }
    )


def _fetch_archive(layout: Layout, raw: Path) -> Path:
    """Return the archive's path; download it only if its unpacked folder is missing."""
    path = raw / layout.remote.name
    return path if (raw / layout.folder).is_dir() else fetch_file(layout.remote, raw)


def _split_sizes(layout: Layout, parts: dict[str, np.ndarray]) -> dict[str, int]:
    return {"train": sum(len(parts[file]) for file in layout.train), "test": len(parts[layout.test])}


def _read_class_names(path: Path) -> list[str]:
    if not path.is_file():
        raise Refused(f"{path} is missing: delete the folder {path.parent} to have the archive unpacked again")
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def _map_records(path: Path, layout: Layout) -> np.ndarray:
    """Return the file's records, uint8, N x (label bytes + pixels), mapped from the file."""
    length = layout.label_bytes + PIXELS
    size = path.stat().st_size if path.is_file() else 0
    if not size or size % length:
        raise Refused(
            f"{path}: {size} bytes, not records of {length} bytes; delete the folder {path.parent} to have the "
            f"archive unpacked again"
        )
    return np.memmap(path, np.uint8, "r", shape=(size // length, length))


def read_cifar_images(layout: Layout, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the images of the index's `file` values, uint8, N x 32 x 32 x 3, in that order.

    Raises Refused if `size` is not 32, or if the archive does not hold such an image.
    """
    if size != SIZE:
        raise Refused(f"the images of {layout.folder} are {SIZE} x {SIZE}; size cannot be {size}")
    folder, rows = raw / layout.folder, np.array([int(file) for file in files], dtype=np.int64)
    pixels, offset = np.empty((len(rows), PIXELS), np.uint8), 0
    for file in (*layout.train, layout.test):
        records = _map_records(folder / file, layout)
        inside = (rows >= offset) & (rows < offset + len(records))  # rows of `files` that lie in this file
        pixels[inside] = records[rows[inside] - offset, layout.label_bytes :]
        offset += len(records)
    if len(rows) and (rows.min() < 0 or rows.max() >= offset):
        raise Refused(f"{folder} holds images 0 to {offset - 1}, not {rows.max()}")
    # stored channel first; images of this project have their channels last
    return np.ascontiguousarray(pixels.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))
