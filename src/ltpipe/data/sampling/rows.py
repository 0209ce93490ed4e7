"""Choosing rows of an index: by official split, by class or by file name; and building a manifest from chosen rows.

A row is named by its position in the index, int64. The order of rows matters: a split kind shuffles the rows in the
order of the index, so another order would give another split with the same seed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.storage.table import Table

EXAMPLES = 5

# what a split kind passes to `build_manifest`: role, name of the split, rows
Part = tuple[str, str, np.ndarray]


class Cut(Spec):
    """How many images of each class are set apart: at most `per_class`, or floor(fraction * n) of its n images."""

    per_class: int | None = Field(None, gt=0, description="images of each class, or all of a smaller class")
    fraction: float | None = Field(None, gt=0, lt=1, description="fraction of the images of each class, rounded down")

    @model_validator(mode="after")
    def _check_exactly_one(self) -> "Cut":
        if (self.per_class is None) == (self.fraction is None):
            raise ValueError("state per_class or fraction, not both")
        return self

    def count(self, images: int) -> int:
        """Return how many of a class's `images` are set apart."""
        if self.per_class is not None:
            return min(self.per_class, images)
        return int((self.fraction or 0) * images + 1e-9)  # 0.29 * 100 is 28.999999999999996 in floating point


def official_rows(index: Table, name: str) -> np.ndarray:
    """Return the rows of the official split `name`, in index order.

    Raises Refused, with the names of the existing official splits, if it has no image.
    """
    rows = np.flatnonzero((index["official"] == name).to_numpy(dtype=bool))
    if not len(rows):
        valid = ", ".join(sorted(repr(str(value)) for value in index["official"].unique()))
        raise Refused(f"the index has no image of the official split {name!r}; it has: {valid}")
    return rows


def rows_by_class(labels: np.ndarray, rows: np.ndarray, classes: int) -> list[np.ndarray]:
    """Return the rows of each class 0..classes-1, in the order that they have in `rows`.

    labels: the label of every index row. A class without rows gets an empty array.
    """
    row_labels = labels[rows]
    order = np.argsort(row_labels, kind="stable")
    return np.split(rows[order], np.cumsum(np.bincount(row_labels, minlength=classes))[:-1])


def labels_by_size(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the new label of each label, C: 0 for the class with the most images in `rows`, ties in label order.

    labels: the label of every index row.
    """
    sizes = np.bincount(labels[rows], minlength=int(labels.max()) + 1)
    new_labels = np.empty(len(sizes), dtype=np.int64)
    new_labels[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return new_labels


def match_files(files: np.ndarray, wanted: Sequence[str], by: str, where: str) -> np.ndarray:
    """Return the row of each wanted file; files: the `file` of every index row.

    by: `path` compares the whole path, `name` only what follows the last slash. `where` starts an error message.
    Raises Refused if a wanted file has no row, or if two index rows have the same name.
    """
    import pandas as pd

    index_names, names = pd.Index(files), pd.Index(wanted)
    if by == "name":
        index_names, names = (paths.str.rsplit("/", n=1).str[-1] for paths in (index_names, names))
    if not index_names.is_unique:
        ambiguous = index_names[index_names.duplicated()][:EXAMPLES]
        raise Refused(f"{where}: match: {by} is ambiguous, the index has more than one {', '.join(ambiguous)}")
    rows = index_names.get_indexer(names)  # -1: not in the index
    absent = [wanted[i] for i in np.flatnonzero(rows < 0)[:EXAMPLES]]
    if absent:
        raise Refused(f"{where}: {(rows < 0).sum()} of {len(rows)} images are not in the index: {', '.join(absent)}")
    return rows


def labels_from_lists(labels: np.ndarray, rows: np.ndarray, listed: np.ndarray, where: str) -> np.ndarray:
    """Return the new label of each index label, C: the number that the lists give to this class.

    labels: the label of every index row; listed: the list's label of each of `rows`, N. `where` starts an error
    message. Raises Refused if the images of one class of the index have several labels in the lists, or the reverse.
    """
    pairs = np.unique(np.stack([labels[rows], listed]), axis=1)
    for side, name in zip(pairs, ("the index", "the list"), strict=True):
        values, times = np.unique(side, return_counts=True)
        if (times > 1).any():
            raise Refused(f"{where}: class {values[times > 1][0]} of {name} has more than one label in the other")
    new_labels = np.arange(int(labels.max()) + 1)  # a class that is in no list keeps its label
    new_labels[pairs[0]] = pairs[1]
    return new_labels


def build_manifest(
    index: Table, parts: Sequence[Part], labels: np.ndarray, groups: np.ndarray, attribute: np.ndarray | None = None
) -> Table:
    """Return the manifest of these parts, without the columns id and row.

    labels and attribute are of every index row, groups of every class. Without `attribute`, every image has -1,
    which stands for data without attributes.
    """
    rows = np.concatenate([part[2] for part in parts])
    sizes = [len(part[2]) for part in parts]
    columns: dict[str, Any] = {"label": labels[rows], "group": groups[labels[rows]]}
    columns["attribute"] = np.full(len(rows), -1) if attribute is None else attribute[rows]
    for number, name in enumerate(("role", "split")):
        columns[name] = np.repeat(np.array([part[number] for part in parts], dtype=object), sizes)
    table = index.take(rows)[["image", "source", "file", "class_name"]].reset_index(drop=True).assign(**columns)
    table.attrs = {}  # the attrs of an index (COCO's attribute vectors) would be stored with the manifest
    return table
