"""A long tail imposed on (or natural in) a source's official training images; its official test images test.

    train    of each class the first n_c of its official training images, shuffled
    val      see `val` below; never the test images
    test     the source's official test split, untouched (Tiny ImageNet has labels for its official val only)

The choice is the LDAM generator's (Cao et al., NeurIPS 2019), bit for bit: RandomState(seed); for class 0, 1, ... its
images in file order are shuffled and the first n_c are kept. Each class consumes the same amount of randomness whatever
n_c is, so that subsets of one seed are nested over rho.

val.cut says where validation images come from:

    rest     training images that the long tail leaves out. The training set is then the published one, image by image,
             and no test image is touched; but a real long-tailed problem has no such images, and a class that trains
             on all of its images (class 0 at full size) has no validation image. For CIFAR: numbers stay comparable.
    train    images taken out of the long-tailed sample: what a real problem would do. The training set is smaller than
             the published one.
    official an official split of its own

Each takes the end of the class's shuffled images, so that `rest` gives the same validation images at every rho where
they are free.
"""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Spec
from ltpipe.data.sampling.class_sizes import Profile
from ltpipe.data.sampling.rows import Cut, Part, assemble, by_class, by_size, official
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table


class Val(Spec):
    """Where validation images come from, and how many of each class."""

    cut: Literal["rest", "train", "official"]
    per_class: int | None = Field(None, gt=0)
    fraction: float | None = Field(None, gt=0, lt=1, description="of the class's training images")
    split: str = Field("val", description="official split, with cut: official")

    @model_validator(mode="after")
    def _complete(self) -> "Val":
        if self.cut != "official":
            self.size()
        elif self.per_class or self.fraction:
            raise ValueError("cut: official takes the whole official split; no per_class, no fraction")
        return self

    def size(self) -> Cut:
        """per_class or fraction as a block."""
        return Cut(per_class=self.per_class, fraction=self.fraction)


class Config(Spec):
    """train, test: official splits of the source. classes: `label` keeps the source's class order, `size` makes the
    class with most official training images class 0."""

    profile: Profile
    val: Val
    groups: Groups
    train: str = "train"
    test: str = "test"
    classes: Literal["label", "size"] = "label"
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _rest(self) -> "Config":
        if self.profile.shape == "natural" and self.val.cut == "rest":
            raise ValueError("profile natural leaves no image out: val.cut must be train or official, not rest")
        return self


def choose(rows: np.ndarray, images: int, val: Val, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows of one class; rows: its official training rows in file order (shuffled in place)."""
    random.shuffle(rows)
    kept, rest = np.split(rows, [images])
    if val.cut == "official":
        return kept, rest[:0]
    if val.cut == "rest":
        wanted = val.per_class or val.size().of(images)
        return kept, rest[max(len(rest) - wanted, 0) :]
    cut = min(val.size().of(images), max(images - 1, 0))
    return kept[: images - cut], kept[images - cut :]


def draw_manifest(index: Table, config: Config) -> Table:
    """The manifest of `index`, without the columns id and row. Raises Refused where a class has too few images."""
    pool, labels = official(index, config.train), index["label"].to_numpy(dtype=np.int64)
    if config.classes == "size":
        labels = by_size(labels, pool)[labels]
    classes = int(labels.max()) + 1
    rows = by_class(labels, pool, classes)
    counts = config.profile.of(np.array([len(own) for own in rows]))
    random = np.random.RandomState(config.seed)
    chosen = [choose(own, n, config.val, random) for own, n in zip(rows, counts, strict=True)]
    train, val = (np.concatenate(part) for part in zip(*chosen, strict=True))
    if config.val.cut == "official":
        val = official(index, config.val.split)
    parts: list[Part] = [("train", "train", train), ("val", "val", val), ("test", "test", official(index, config.test))]
    groups = config.groups.of(np.bincount(labels[train], minlength=classes))
    return assemble(index, parts, labels, groups)
