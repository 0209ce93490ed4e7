"""Splits that the authors published as lists: ImageNet-LT and Places-LT (Liu et al., CVPR 2019), iNaturalist 2018.

Each split of the manifest is an official split of the source (which may itself come from the authors' lists), or a
list file of the user with "relative/path label" per line, matched to the index by path or by file name. The labels of
list files replace those of the index.

Nothing is drawn at random, except by `cut`, which takes validation images out of a training split. It is for data whose
only other list of the authors is their test set (iNaturalist 2018), because a test set must not select anything.

ImageNet-LT: val is 20 images per class of ILSVRC train, test is ILSVRC val.
"""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.acquire import image_lists
from ltpipe.data.sampling.rows import (
    Cut,
    Part,
    build_manifest,
    labels_from_lists,
    match_files,
    official_rows,
    rows_by_class,
)
from ltpipe.storage.manifest import Groups, role_of
from ltpipe.storage.table import Table


class ListedSplit(Spec):
    """One split of the manifest: an official split of the source, or a list file. State official or list."""

    role: Literal["train", "val", "test"] = Field(description="role of all images of the split: its name's first word")
    official: str | None = Field(None, description="name of an official split of the source")
    list: str | None = Field(None, description='path of a text file (or .gz) with "relative/path label" per line')
    lines: int | None = Field(None, gt=0, description="number of images that the split must have; default: any")

    @model_validator(mode="after")
    def _check_exactly_one(self) -> "ListedSplit":
        if (self.official is None) == (self.list is None):
            raise ValueError("state official or list, not both")
        return self

    def files(self) -> frozenset[str]:
        return frozenset({self.list} if self.list else ())


class ValCut(Cut):
    """Validation images of each class, taken out of a training split; they become the split val."""

    split: str = Field("train", description="split from which the images are taken")


class Config(Spec):
    """The options of this split kind."""

    splits: dict[str, ListedSplit] = Field(min_length=1, description="the manifest's splits by name")
    cut: ValCut | None = Field(
        None, description="validation images taken out of a training split; null: no image is taken out"
    )
    groups: Groups = Field(description="rule that gives each class its group, by its images in the split `train`")
    train: str = Field("train", description="split whose class sizes decide the groups")
    match: Literal["path", "name"] = Field(
        "path", description="what a list and the index compare: the whole path, or only the file's name"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of `cut`")

    @model_validator(mode="after")
    def _check_splits(self) -> "Config":
        needed = {self.train, *([self.cut.split] if self.cut else [])}
        if unknown := sorted(needed - set(self.splits)):
            raise ValueError(f"no split {', '.join(unknown)}; splits: {', '.join(self.splits)}")
        if wrong := [f"{name} has {split.role}" for name, split in self.splits.items() if split.role != role_of(name)]:
            raise ValueError(f"the name of a split begins with its role, e.g. test or test_far, but {', '.join(wrong)}")
        if self.cut and "val" in self.splits:
            raise ValueError("cut makes the split val, which is listed too")
        return self


def read_list_file(path: Path, classes: int) -> list[image_lists.Entry]:
    """Return the entries of a list file, plain or .gz. Raises Refused if it cannot be read or is not a list."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise Refused(f"official_lists: cannot read the list {path}: {error}") from None
    return image_lists.parse_list(text, str(path), classes)


def draw_manifest(index: Table, config: Config) -> Table:
    """Return the manifest of `index`, without the columns id and row.

    Raises Refused if a list cannot be read or does not fit the index or another list, or if a split has not exactly
    `lines` images.
    """
    labels, files = index["label"].to_numpy(dtype=np.int64), index["file"].to_numpy(dtype=object)
    classes = int(labels.max()) + 1
    rows: dict[str, np.ndarray] = {}
    listed: list[np.ndarray] = []  # for each list 2 x N: index rows, the list's labels
    for name, split in config.splits.items():
        if split.list is None:
            rows[name] = official_rows(index, split.official or "")
        else:
            entries = read_list_file(Path(split.list), classes)
            rows[name] = match_files(files, [entry.file for entry in entries], config.match, f"list {split.list}")
            listed.append(np.stack([rows[name], [entry.label for entry in entries]]))
        if split.lines and split.lines != len(rows[name]):
            raise Refused(f"official_lists, split {name}: {len(rows[name])} images, not {split.lines}")
    if listed:
        listed_rows, listed_labels = np.concatenate(listed, axis=1)
        labels = labels_from_lists(labels, listed_rows, listed_labels, "official_lists")[labels]
    parts = _build_parts(rows, labels, classes, config)
    train = next(part_rows for _, name, part_rows in parts if name == config.train)
    groups = config.groups.of_classes(np.bincount(labels[train], minlength=classes))
    return build_manifest(index, parts, labels, groups)


def _build_parts(split_rows: Mapping[str, np.ndarray], labels: np.ndarray, classes: int, config: Config) -> list[Part]:
    """Return the splits as parts; with `cut`, also val, whose rows its training split loses."""
    rows = dict(split_rows)
    roles = {name: split.role for name, split in config.splits.items()}
    if config.cut:
        random = np.random.RandomState(config.seed)
        kept, cut = [], []
        for class_rows in rows_by_class(labels, rows[config.cut.split], classes):
            random.shuffle(class_rows)
            # from the end, and leave a training image
            at = len(class_rows) - min(config.cut.count(len(class_rows)), max(len(class_rows) - 1, 0))
            kept.append(class_rows[:at])
            cut.append(class_rows[at:])
        rows[config.cut.split], rows["val"], roles["val"] = np.concatenate(kept), np.concatenate(cut), "val"
    return [(roles[name], name, part_rows) for name, part_rows in rows.items()]
