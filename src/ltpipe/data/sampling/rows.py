"""Rows of an index: which there are, by official split and by class; and a manifest made of chosen ones.

A row is named by its position in the index, int64. Order matters: a split is seeded by shuffling rows in index order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.storage.table import Table

EXAMPLES = 5

# what a split kind hands to `assemble`: role, split, rows
Part = tuple[str, str, np.ndarray]


class Cut(Spec):
    """Images of a class set apart, from the end of its shuffled rows: at most `per_class`, or floor(fraction * n)."""

    per_class: int | None = Field(None, gt=0)
    fraction: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one(self) -> "Cut":
        if (self.per_class is None) == (self.fraction is None):
            raise ValueError("state per_class or fraction, not both")
        return self

    def of(self, images: int) -> int:
        """How many of `images`."""
        if self.per_class is not None:
            return min(self.per_class, images)
        return int((self.fraction or 0) * images + 1e-9)


def official(index: Table, name: str) -> np.ndarray:
    """Rows whose `official` is `name`, in index order. Raises Refused, with the names there are, where none is."""
    rows = np.flatnonzero((index["official"] == name).to_numpy(dtype=bool))
    if not len(rows):
        valid = ", ".join(sorted(repr(str(value)) for value in index["official"].unique()))
        raise Refused(f"the index has no image of the official split {name!r}; it has: {valid}")
    return rows


def by_class(labels: np.ndarray, rows: np.ndarray, classes: int) -> list[np.ndarray]:
    """`rows` of each class 0..classes-1 (numeric order), each in the order of `rows`; labels: of every index row."""
    own = labels[rows]
    order = np.argsort(own, kind="stable")
    return np.split(rows[order], np.cumsum(np.bincount(own, minlength=classes))[:-1])


def by_size(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """New label of each label, C: 0 the class with most `rows`, ties in label order."""
    sizes = np.bincount(labels[rows], minlength=int(labels.max()) + 1)
    new = np.empty(len(sizes), dtype=np.int64)
    new[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return new


def match(files: np.ndarray, wanted: Sequence[str], by: str, where: str) -> np.ndarray:
    """Row of each wanted file among the index's `files`. Raises Refused where one has none, or a name is ambiguous."""
    import pandas as pd

    known, names = pd.Index(files), pd.Index(wanted)
    if by == "name":
        known, names = known.str.rsplit("/", n=1).str[-1], names.str.rsplit("/", n=1).str[-1]
    if not known.is_unique:
        twice = known[known.duplicated()][:EXAMPLES]
        raise Refused(f"{where}: match: {by} is ambiguous, the index has more than one {', '.join(twice)}")
    rows = known.get_indexer(names)
    absent = [wanted[i] for i in np.flatnonzero(rows < 0)[:EXAMPLES]]
    if absent:
        raise Refused(f"{where}: {(rows < 0).sum()} of {len(rows)} images are not in the index: {', '.join(absent)}")
    return rows


def renumber(labels: np.ndarray, rows: np.ndarray, listed: np.ndarray, where: str) -> np.ndarray:
    """New label of each index label, as the lists number them. Raises Refused where the two disagree on a class."""
    pairs = np.unique(np.stack([labels[rows], listed]), axis=1)
    for own, name in zip(pairs, ("the index", "the list"), strict=True):
        values, times = np.unique(own, return_counts=True)
        if (times > 1).any():
            raise Refused(f"{where}: class {values[times > 1][0]} of {name} has more than one label in the other")
    new = np.arange(int(labels.max()) + 1)
    new[pairs[0]] = pairs[1]
    return new


def assemble(
    index: Table, parts: Sequence[Part], labels: np.ndarray, groups: np.ndarray, attribute: np.ndarray | None = None
) -> Table:
    """The manifest without id and row. labels, attribute: of every index row; groups: of every class.

    Without `attribute` every image has -1: the data has none.
    """
    rows = np.concatenate([part[2] for part in parts])
    sizes = [len(part[2]) for part in parts]
    columns: dict[str, Any] = {"label": labels[rows], "group": groups[labels[rows]]}
    columns["attribute"] = np.full(len(rows), -1) if attribute is None else attribute[rows]
    for number, name in enumerate(("role", "split")):
        columns[name] = np.repeat(np.array([part[number] for part in parts], dtype=object), sizes)
    table = index.take(rows)[["image", "source", "file", "class_name"]].reset_index(drop=True).assign(**columns)
    table.attrs = {}  # what a source adds to its index is no part of the manifest
    return table
