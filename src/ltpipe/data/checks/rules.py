"""The rules a manifest must keep: pure functions, manifest in, one line per violation out (none: the rule holds).

Each parameter is JSON-able, because great-expectations stores it with the result.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table


def _counts(manifest: Table, split: str, column: str, size: int) -> np.ndarray:
    values = manifest.loc[manifest["split"] == split, column]
    return np.bincount(values[values >= 0], minlength=size)


def files_exist(manifest: Table, folder: str) -> list[str]:
    """Every file below `folder` is there and is not empty; a number is a row of the source's own array, not a file."""
    files = manifest["file"].drop_duplicates()
    return [file for file in files[~files.str.isdigit()] if not _filled(f"{folder}/{file}")]


def _filled(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0  # noqa: PTH116 - a million Path objects would cost seconds
    except OSError:
        return False


def class_counts(
    manifest: Table, counts: Mapping[str, Sequence[int] | Mapping[str, int]], classes: int = 0
) -> list[str]:
    """Images of each class in each split are exactly `counts`: split -> images of class 0, 1, ..., or a summary.

    A summary states some of total, classes (that have an image), largest and smallest, of all `classes` classes.
    """
    found = {split: _counts(manifest, split, "label", classes) for split in counts}
    lines: list[str] = []
    for split, wanted in counts.items():
        if isinstance(wanted, Mapping):
            lines += _summary(split, found[split], wanted)
        else:
            lines += _each(split, found[split], wanted)
    return lines


def _each(split: str, found: np.ndarray, wanted: Sequence[int]) -> list[str]:
    whole = np.zeros(max(len(found), len(wanted)), dtype=np.int64)
    whole[: len(found)] = found
    return [
        f"{split} class {label}: {whole[label]} images, not {images}"
        for label, images in enumerate(wanted)
        if whole[label] != images
    ]


def _summary(split: str, found: np.ndarray, wanted: Mapping[str, int]) -> list[str]:
    facts = {"total": found.sum(), "classes": (found > 0).sum(), "largest": found.max(), "smallest": found.min()}
    return [f"{split} {name}: {facts[name]}, not {value}" for name, value in wanted.items() if facts[name] != value]


def every_class(manifest: Table, classes: int) -> list[str]:
    """Every class of 0 .. classes - 1 has an image in some split: one without would be a dead output of the network."""
    absent = sorted(set(range(classes)) - set(manifest["label"].unique().tolist()))
    return [f"class {label} has no image in any split" for label in absent]


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


def groups_of(manifest: Table, split: str | Sequence[str], by: str, many: int, medium: int) -> list[str]:
    """Each row's group is what the rule says of its class, given the class sizes in `split` (in all of them)."""
    classes = int(manifest["label"].max()) + 1
    splits = [split] if isinstance(split, str) else split
    sizes = np.sum([_counts(manifest, name, "label", classes) for name in splits], axis=0)
    wanted = Groups(by=by, many=many, medium=medium).of(sizes)  # type: ignore[arg-type]
    wrong = manifest[manifest["group"].to_numpy() != wanted[manifest["label"].to_numpy()]]
    return [f"{i}: {g}, not {wanted[y]}" for i, g, y in zip(wrong["id"], wrong["group"], wrong["label"], strict=True)]


def one_role(manifest: Table) -> list[str]:
    """A split has one role: a training split holds no test image by name."""
    pairs = manifest[["split", "role"]].drop_duplicates()
    wrong = pairs[pairs["split"].duplicated(keep=False)]
    return [f"split {split} has role {role}" for split, role in zip(wrong["split"], wrong["role"], strict=True)]


def one_row(manifest: Table) -> list[str]:
    """Image, file and row are one to one, rows from 0 without a hole: a row cannot show another image."""
    pairs = manifest[["image", "file", "row"]].drop_duplicates()
    columns = [pairs[column].duplicated(keep=False) for column in ("image", "file", "row")]
    wrong = pairs[columns[0] | columns[1] | columns[2]]
    lines = [
        f"image {i}, file {f}, row {r}" for i, f, r in zip(wrong["image"], wrong["file"], wrong["row"], strict=True)
    ]
    return lines or ([] if set(pairs["row"]) == set(range(len(pairs))) else ["rows are not 0, 1, ... without a hole"])


def one_name(manifest: Table) -> list[str]:
    """A label has one class name, and a class name one label."""
    pairs = manifest[["label", "class_name"]].drop_duplicates()
    wrong = pairs[pairs["label"].duplicated(keep=False) | pairs["class_name"].duplicated(keep=False)]
    return [f"label {y} is called {name}" for y, name in zip(wrong["label"], wrong["class_name"], strict=True)]
