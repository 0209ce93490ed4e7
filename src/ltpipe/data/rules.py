"""The rules a manifest must keep: pure functions, manifest in, one line per violation out (none: the rule holds).

Each parameter is JSON-able, because great-expectations stores it with the result.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from ltpipe.data.manifest import Groups
from ltpipe.data.tables import Table


def _counts(manifest: Table, split: str, column: str, size: int) -> np.ndarray:
    values = manifest.loc[manifest["split"] == split, column]
    return np.bincount(values[values >= 0], minlength=size)


def files_exist(manifest: Table, folder: str) -> list[str]:
    """Every file below `folder` is there and is not empty; a number is a row of the source's own array, not a file."""
    files = [file for file in manifest["file"].unique() if not file.isdigit()]
    return [file for file in files if not _filled(f"{folder}/{file}")]


def _filled(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0  # noqa: PTH116 - a million Path objects would cost seconds
    except OSError:
        return False


def class_counts(manifest: Table, counts: Mapping[str, Sequence[int]]) -> list[str]:
    """Images of each class in each split are exactly `counts`: split -> images of class 0, 1, ..."""
    return [
        f"{split} class {label}: {found[label] if label < len(found) else 0} images, not {wanted[label]}"
        for split, wanted in counts.items()
        for found in [_counts(manifest, split, "label", len(wanted))]
        for label in range(len(wanted))
        if found[label] != wanted[label]
    ]


def attribute_counts(manifest: Table, counts: Mapping[str, Sequence[int]]) -> list[str]:
    """Images of each attribute rank in each split are exactly `counts`: split -> images of rank 0, 1, ..."""
    return [
        f"{split} attribute rank {rank}: {found[rank]} images, not {wanted[rank]}"
        for split, wanted in counts.items()
        for found in [_counts(manifest, split, "attribute", len(wanted))]
        for rank in range(len(wanted))
        if found[rank] != wanted[rank]
    ]


def every_rank(manifest: Table, splits: Sequence[str], ranks: int) -> list[str]:
    """Every class has an image of each attribute rank in each of `splits`."""
    labels = sorted(manifest["label"].unique())
    rows = manifest[manifest["split"].isin(splits)]
    present = set(zip(rows["split"], rows["label"], rows["attribute"], strict=True))
    return [
        f"{split} class {label} has no image of rank {rank}"
        for split in splits
        for label in labels
        for rank in range(ranks)
        if (split, label, rank) not in present
    ]


def disjoint(manifest: Table) -> list[str]:
    """No source image is in two roles (train, val, test)."""
    pairs = manifest[["source", "role"]].drop_duplicates()
    leaked = pairs[pairs["source"].duplicated(keep=False)]
    roles = leaked.groupby("source")["role"].agg(lambda r: " and ".join(sorted(r)))
    return [f"{source} is in {where}" for source, where in roles.items()]


def groups_of(manifest: Table, split: str, by: str, many: int, medium: int) -> list[str]:
    """Each row's group is what the rule says of its class, given the class sizes in `split`."""
    classes = int(manifest["label"].max()) + 1
    wanted = Groups(by=by, many=many, medium=medium).of(_counts(manifest, split, "label", classes))  # type: ignore[arg-type]
    wrong = manifest[manifest["group"].to_numpy() != wanted[manifest["label"].to_numpy()]]
    return [f"{i}: {g}, not {wanted[y]}" for i, g, y in zip(wrong["id"], wrong["group"], wrong["label"], strict=True)]


def one_name(manifest: Table) -> list[str]:
    """A label has one class name, and a class name one label."""
    pairs = manifest[["label", "class_name"]].drop_duplicates()
    wrong = pairs[pairs["label"].duplicated(keep=False) | pairs["class_name"].duplicated(keep=False)]
    return [f"label {y} is called {name}" for y, name in zip(wrong["label"], wrong["class_name"], strict=True)]
