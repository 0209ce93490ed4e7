"""A long tail imposed on (or natural in) a source's official training images; its official test images are the test.

    train    the first n_c official training images of each class c, after a shuffle
    val      see `val.cut` below; never test images
    test     the source's official test split, unchanged (Tiny ImageNet has labels for its official val only)

The images are those of the LDAM generator (Cao et al., NeurIPS 2019), bit for bit: with RandomState(seed), for class
0, 1, ... in turn, the class's images are shuffled in file order, and the first n_c are kept. Each class uses the same
amount of randomness for any n_c, so subsets of one seed are nested over rho.

val.cut decides where validation images come from:

    rest     training images that the long tail leaves out. The training set is then the published one, image by image,
             and no test image is used; but a real long-tailed problem has no such images, and a class that trains on
             all of its images (class 0 at full size) has no validation image. For CIFAR: results stay comparable.
    train    images taken out of the long-tailed sample, as in a real problem. The training set is smaller than the
             published one; each class keeps at least one training image.
    official an official split of the source, all of it

`rest` and `train` take the end of a class's shuffled images. So `rest` gives the same validation images at every rho,
as far as they are left out there.
"""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Spec
from ltpipe.data.sampling.class_sizes import Profile
from ltpipe.data.sampling.rows import Cut, Part, build_manifest, labels_by_size, official_rows, rows_by_class
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table


class Val(Spec):
    """Where validation images come from, and how many of each class."""

    cut: Literal["rest", "train", "official"] = Field(
        description="rest: training images that the long tail leaves out; train: images of the long-tailed sample; "
        "official: an official split of the source"
    )
    per_class: int | None = Field(
        None, gt=0, description="validation images of each class, as far as there are; or state fraction"
    )
    fraction: float | None = Field(
        None, gt=0, lt=1, description="validation images as a fraction of the class's size n_c in the long tail"
    )
    split: str = Field("val", description="name of the official split, for cut: official")

    @model_validator(mode="after")
    def _check_options(self) -> "Val":
        if self.cut != "official":
            self.as_cut()  # raises if not exactly one of per_class and fraction is stated
        elif self.per_class or self.fraction:
            raise ValueError("cut: official takes the whole official split; no per_class, no fraction")
        return self

    def as_cut(self) -> Cut:
        """Return per_class or fraction as a `Cut`."""
        return Cut(per_class=self.per_class, fraction=self.fraction)


class Config(Spec):
    """The options of this split kind."""

    profile: Profile = Field(description="class sizes n_c of the long tail, before `val.cut: train` takes images out")
    val: Val = Field(description="where validation images come from, and how many")
    groups: Groups = Field(description="rule that gives each class its group, by its images in train")
    train: str = Field("train", description="official split from which the long tail is drawn")
    test: str = Field("test", description="official split that is the test split")
    classes: Literal["label", "size"] = Field(
        "label",
        description="numbers of classes. label: those of the source; size: class 0 has most official training images",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the shuffles")

    @model_validator(mode="after")
    def _check_rest(self) -> "Config":
        if self.profile.shape == "natural" and self.val.cut == "rest":
            raise ValueError("profile natural leaves no image out: val.cut must be train or official, not rest")
        return self


def cut_class(rows: np.ndarray, images: int, val: Val, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and the validation rows of one class.

    rows: the class's official training rows in file order, shuffled in place; images: the class's size n_c.
    With `cut: official` there are no validation rows.
    """
    random.shuffle(rows)
    kept, left_out = np.split(rows, [images])
    if val.cut == "official":
        return kept, left_out[:0]
    if val.cut == "rest":
        # not as_cut().count(images), whose limit is n_c: the images that are left out may be more than n_c
        wanted = val.per_class or val.as_cut().count(images)
        return kept, left_out[max(len(left_out) - wanted, 0) :]
    cut = min(val.as_cut().count(images), max(images - 1, 0))  # leave a training image
    return kept[: images - cut], kept[images - cut :]


def draw_manifest(index: Table, config: Config) -> Table:
    """Return the manifest of `index`, without the columns id and row. Raises Refused if a class has too few images."""
    pool, labels = official_rows(index, config.train), index["label"].to_numpy(dtype=np.int64)
    if config.classes == "size":
        labels = labels_by_size(labels, pool)[labels]
    classes = int(labels.max()) + 1
    class_rows = rows_by_class(labels, pool, classes)
    sizes = config.profile.class_sizes(np.array([len(rows) for rows in class_rows]))
    random = np.random.RandomState(config.seed)
    chosen = [cut_class(rows, n, config.val, random) for rows, n in zip(class_rows, sizes, strict=True)]
    train, val = (np.concatenate(part) for part in zip(*chosen, strict=True))
    if config.val.cut == "official":
        val = official_rows(index, config.val.split)
    test = official_rows(index, config.test)
    parts: list[Part] = [("train", "train", train), ("val", "val", val), ("test", "test", test)]
    groups = config.groups.of_classes(np.bincount(labels[train], minlength=classes))
    return build_manifest(index, parts, labels, groups)
