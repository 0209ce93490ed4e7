"""Splits that the authors published as lists: ImageNet-LT and Places-LT (Liu et al., CVPR 2019), iNaturalist 2018.

Each split of the manifest is an official split of the source (which may itself come from the authors' lists), or a
list file of the user, "relative/path label" a line, matched to the index by path. Nothing is drawn at random, except
where `cut` takes validation images out of training: where the authors' only other list is their test set
(iNaturalist 2018), because a test set never selects.

ImageNet-LT: val is 20 images a class of ILSVRC train, test is ILSVRC val.
"""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.acquire import image_lists
from ltpipe.data.sampling.rows import Cut, Part, assemble, by_class, match, official, renumber
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table


class One(Spec):
    """One split: the source's official split of that name, or a list file. lines: how many images it must have."""

    role: Literal["train", "val", "test"]
    official: str | None = None
    list: str | None = Field(None, description='path of a text file (or .gz), "relative/path label" a line')
    lines: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> "One":
        if (self.official is None) == (self.list is None):
            raise ValueError("state official or list, not both")
        return self


class From(Cut):
    """Images taken out of the training split `split`; they become the split val."""

    split: str = "train"


class Config(Spec):
    """match: by the index's whole path, or by the file's name alone. groups: of the class sizes of `train`."""

    splits: dict[str, One] = Field(min_length=1)
    cut: From | None = None
    groups: Groups
    train: str = "train"
    match: Literal["path", "name"] = "path"
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        named = {self.train, *([self.cut.split] if self.cut else [])}
        if unknown := sorted(named - set(self.splits)):
            raise ValueError(f"no split {', '.join(unknown)}; splits: {', '.join(self.splits)}")
        if self.cut and "val" in self.splits:
            raise ValueError("cut makes the split val, which is listed too")
        return self


def read(path: Path, classes: int) -> list[image_lists.Entry]:
    """The entries of a list file, plain or .gz. Raises Refused where it is not one."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise Refused(f"official_lists: cannot read the list {path}: {error}") from None
    return image_lists.parse(text, str(path), classes)


def draw_manifest(index: Table, config: Config) -> Table:
    """The manifest of `index`, without the columns id and row; the lists decide which images and which labels."""
    labels, files = index["label"].to_numpy(dtype=np.int64), index["file"].to_numpy(dtype=object)
    classes = int(labels.max()) + 1
    found: dict[str, np.ndarray] = {}
    listed: list[np.ndarray] = []  # columns: row, label
    for name, one in config.splits.items():
        if one.list is None:
            found[name] = official(index, one.official or "")
        else:
            entries = read(Path(one.list), classes)
            found[name] = match(files, [entry.file for entry in entries], config.match, f"list {one.list}")
            listed.append(np.stack([found[name], [entry.label for entry in entries]]))
        if one.lines and one.lines != len(found[name]):
            raise Refused(f"official_lists, split {name}: {len(found[name])} images, not {one.lines}")
    if listed:
        rows, named = np.concatenate(listed, axis=1)
        labels = renumber(labels, rows, named, "official_lists")[labels]
    parts = [*_cut(found, labels, classes, config)]
    train = next(rows for _, name, rows in parts if name == config.train)
    return assemble(index, parts, labels, config.groups.of(np.bincount(labels[train], minlength=classes)))


def _cut(found: Mapping[str, np.ndarray], labels: np.ndarray, classes: int, config: Config) -> list[Part]:
    """The splits as parts; with `cut`, val too."""
    rows = dict(found)
    roles = {name: one.role for name, one in config.splits.items()}
    if config.cut:
        random = np.random.RandomState(config.seed)
        kept, cut = [], []
        for own in by_class(labels, rows[config.cut.split], classes):
            random.shuffle(own)
            at = len(own) - min(config.cut.of(len(own)), max(len(own) - 1, 0))
            kept.append(own[:at])
            cut.append(own[at:])
        rows[config.cut.split], rows["val"], roles["val"] = np.concatenate(kept), np.concatenate(cut), "val"
    return [(roles[name], name, own) for name, own in rows.items()]
