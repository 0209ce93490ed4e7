"""The rules that a manifest must keep, as pure functions.

Each function takes the manifest and returns one line of text per violation; an empty list means that the rule holds.
The other parameters must be JSON-able, because great-expectations stores them with the result.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ltpipe.storage.manifest import Groups, role_of
from ltpipe.storage.table import Table


def _count_values(manifest: Table, split: str, column: str, size: int) -> np.ndarray:
    """Return how often each value 0, 1, ... of an integer column occurs in a split; negative values are ignored."""
    values = manifest.loc[manifest["split"] == split, column]
    return np.bincount(values[values >= 0], minlength=size)


def files_exist(manifest: Table, folder: str) -> list[str]:
    """Check that every file below `folder` exists and is not empty.

    A `file` of digits only is a row number of the source's own array, not a path, and is not checked.
    """
    files = manifest["file"].drop_duplicates()
    return [file for file in files[~files.str.isdigit()] if not _has_content(f"{folder}/{file}")]


def _has_content(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0  # noqa: PTH116 - a million Path objects would cost seconds
    except OSError:
        return False


def class_counts(
    manifest: Table, counts: Mapping[str, Sequence[int] | Mapping[str, int]], classes: int = 0
) -> list[str]:
    """Check the number of images of each class in each split.

    counts: split -> images of class 0, 1, ..., or a summary of them. A summary states one or more of total, classes
    (that have an image), largest and smallest; all four are over all `classes` classes.
    """
    actual = {split: _count_values(manifest, split, "label", classes) for split in counts}
    names = _class_names(manifest)
    lines: list[str] = []
    for split, wanted in counts.items():
        if isinstance(wanted, Mapping):
            lines += _compare_summary(split, actual[split], wanted)
        else:
            lines += _compare_sizes(split, actual[split], wanted, names)
    return lines


def _class_names(manifest: Table) -> dict[int, str]:
    """Return label -> the number, and the name if it says more: "3 (cat)"."""
    pairs = manifest[["label", "class_name"]].drop_duplicates("label")
    named = zip(pairs["label"], pairs["class_name"], strict=True)
    return {label: str(label) if str(label) == str(name) else f"{label} ({name})" for label, name in named}


def _compare_sizes(split: str, actual: np.ndarray, wanted: Sequence[int], names: Mapping[int, str]) -> list[str]:
    # without images of the last classes `actual` may be shorter than `wanted`: those classes have 0 images
    padded = np.zeros(max(len(actual), len(wanted)), dtype=np.int64)
    padded[: len(actual)] = actual
    return [
        f"{split} class {names.get(label, label)}: {padded[label]} images, not {images}"
        for label, images in enumerate(wanted)
        if padded[label] != images
    ]


def _compare_summary(split: str, actual: np.ndarray, wanted: Mapping[str, int]) -> list[str]:
    facts = {"total": actual.sum(), "classes": (actual > 0).sum(), "largest": actual.max(), "smallest": actual.min()}
    return [f"{split} {name}: {facts[name]}, not {value}" for name, value in wanted.items() if facts[name] != value]


def every_class(manifest: Table, classes: int) -> list[str]:
    """Check that each class 0..classes-1 has an image in some split; without one, an output of the network is dead."""
    absent = sorted(set(range(classes)) - set(manifest["label"].unique().tolist()))  # no row, so no name
    return [f"class {label} has no image in any split" for label in absent]


def attribute_counts(manifest: Table, counts: Mapping[str, Sequence[int]]) -> list[str]:
    """Check the number of images of each attribute rank in each split; counts: split -> images of rank 0, 1, ..."""
    return [
        f"{split} attribute rank {rank}: {actual[rank]} images, not {wanted[rank]}"
        for split, wanted in counts.items()
        for actual in [_count_values(manifest, split, "attribute", len(wanted))]
        for rank in range(len(wanted))
        if actual[rank] != wanted[rank]
    ]


def every_rank(manifest: Table, splits: Sequence[str], ranks: int) -> list[str]:
    """Check that every class has an image of each attribute rank 0..ranks-1 in each of `splits`."""
    labels, names = sorted(manifest["label"].unique()), _class_names(manifest)
    rows = manifest[manifest["split"].isin(splits)]
    present = set(zip(rows["split"], rows["label"], rows["attribute"], strict=True))
    return [
        f"{split} class {names[label]} has no image of rank {rank}"
        for split in splits
        for label in labels
        for rank in range(ranks)
        if (split, label, rank) not in present
    ]


def disjoint(manifest: Table) -> list[str]:
    """Check that no source image is in two roles (train, val, test)."""
    pairs = manifest[["source", "role"]].drop_duplicates()
    leaked = pairs[pairs["source"].duplicated(keep=False)]
    roles = leaked.groupby("source")["role"].agg(lambda r: " and ".join(sorted(r)))
    return [f"{source} is in {where}" for source, where in roles.items()]


def groups_of(manifest: Table, split: str | Sequence[str], by: str, many: int, medium: int) -> list[str]:
    """Check that each row has the group of its class by the rule `by`, `many`, `medium` (see `Groups`).

    Class sizes are those of `split`; of several splits, their sum.
    """
    classes = int(manifest["label"].max()) + 1
    splits = [split] if isinstance(split, str) else split
    sizes = np.sum([_count_values(manifest, name, "label", classes) for name in splits], axis=0)
    wanted = Groups(by=by, many=many, medium=medium).of_classes(sizes)  # type: ignore[arg-type]
    wrong = manifest[manifest["group"].to_numpy() != wanted[manifest["label"].to_numpy()]]
    return [f"{i}: {g}, not {wanted[y]}" for i, g, y in zip(wrong["id"], wrong["group"], wrong["label"], strict=True)]


def one_role(manifest: Table) -> list[str]:
    """Check that all rows of a split have the role with which its name begins: test_cbl has the role test."""
    pairs = manifest[["split", "role"]].drop_duplicates()
    return [
        f"split {split} has role {role}, {f'not {wanted}' if wanted else 'but its name begins with no role'}"
        for split, role in zip(pairs["split"], pairs["role"], strict=True)
        if (wanted := role_of(str(split))) is None or role != wanted
    ]


def one_row(manifest: Table) -> list[str]:
    """Check that image, file and row are one to one, and that rows are 0, 1, ... without a gap.

    Otherwise a row of the packed array could show another image than the manifest says.
    """
    pairs = manifest[["image", "file", "row"]].drop_duplicates()
    columns = [pairs[column].duplicated(keep=False) for column in ("image", "file", "row")]
    wrong = pairs[columns[0] | columns[1] | columns[2]]
    lines = [
        f"image {i}, file {f}, row {r}" for i, f, r in zip(wrong["image"], wrong["file"], wrong["row"], strict=True)
    ]
    return lines or ([] if set(pairs["row"]) == set(range(len(pairs))) else ["rows are not 0, 1, ... without a gap"])


def one_name(manifest: Table) -> list[str]:
    """Check that each label has one class name, and each class name one label."""
    pairs = manifest[["label", "class_name"]].drop_duplicates()
    wrong = pairs[pairs["label"].duplicated(keep=False) | pairs["class_name"].duplicated(keep=False)]
    return [f"label {y} is called {name}" for y, name in zip(wrong["label"], wrong["class_name"], strict=True)]


def sharp_crops(
    manifest: Table, crops: Mapping[str, Mapping[str, float]], upsampled: float | Literal["whole"]
) -> list[str]:
    """Check that no training split has more enlarged boxes than `upsampled`, a share, or than whole pictures give.

    crops: what ltpipe.data.crops measured of each training split.
    """
    lines = [f"{split}: not measured" for split in sorted(set(manifest["split"])) if role_of(str(split)) == "train"]
    if not crops:
        return lines
    return [
        f"{split}: {100 * facts['upsampled']:.1f} % of random boxes are enlarged (median {facts['median']:.2f} source "
        f"pixels per output pixel), not at most {100 * limit:.1f} %: take them from larger pictures (source.pictures)"
        for split, facts in crops.items()
        if facts["upsampled"] > (limit := facts["upsampled_whole"] if upsampled == "whole" else upsampled)
    ]
