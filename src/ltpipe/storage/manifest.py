"""The manifest, the table that all stages after `split` use: its columns, its group rule and its fingerprint.

One row is one image in one split. Columns, in this order:
    id          unique: "<split>/<image>"
    image       the image's name in the index (an image may be in several splits of one role: Test-CBL and Test-GBL)
    source      the original image from which `image` was made; no source is in two roles
    file        where the source keeps the image: a path, or a row number of the source's own array
    row         the image's row in the packed array of images (int64)
    label       class number from 0 (int64). The split kind decides the order of classes: that of the source or of the
                lists (longtail, stratified, official_lists, glt, glt_clusters with `authors`), or by size, class 0 the
                largest (glt_clusters, coco_glt, longtail with classes: size)
    class_name
    role        train, val or test
    split       train_glt, train_cbl, val, test_cbl, ...
    group       many, medium or few: a property of the class
    attribute   rank of the attribute inside its class, 0 the most frequent; -1 if the data has none (int64)
"""

import hashlib
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Spec
from ltpipe.storage.table import Table

COLUMNS = ("id", "image", "source", "file", "row", "label", "class_name", "role", "split", "group", "attribute")
# the columns that predictions keep
KEPT = ("id", "source", "split", "label", "group", "attribute")
ROLES = ("train", "val", "test")
GROUPS = ("many", "medium", "few")


class Groups(Spec):
    """The rule that sorts classes into the groups many, medium and few.

    `by: rank` counts classes, largest first (ImageNet-GLT: 400 many, 450 medium, the last 150 few).
    `by: count` compares a class's images with two limits (Kang et al., ICLR 2020: many 100, medium 20).
    """

    by: Literal["rank", "count"] = Field(
        description="rank: the group depends on the class's place in order of size; count: on its number of images"
    )
    many: int = Field(
        gt=0, description="rank: number of classes in the group many; count: a class with more images than this is many"
    )
    medium: int = Field(
        gt=0,
        description="rank: number of classes in the group medium; count: a class with fewer images than this is few",
    )

    @model_validator(mode="after")
    def _check_order(self) -> "Groups":
        if self.by == "count" and self.medium > self.many:
            raise ValueError(f"by: count needs medium <= many, not {self.medium} > {self.many}")
        return self

    def of_classes(self, counts: np.ndarray) -> np.ndarray:
        """Return the group of each class, C; counts: images of each class, C. Equal counts rank in class order."""
        if self.by == "count":
            return np.where(counts > self.many, "many", np.where(counts < self.medium, "few", "medium"))
        rank = np.empty(len(counts), dtype=np.int64)
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        return np.where(rank < self.many, "many", np.where(rank < self.many + self.medium, "medium", "few"))


def fingerprint(manifest: Table) -> str:
    """Return the first 16 hex digits of a SHA-256 over ids, labels, splits, groups and attributes, in order of id.

    It does not depend on the content of the images; `data_version` does.
    """
    ordered = manifest.sort_values("id")
    digest = hashlib.sha256()
    for column in ("id", "label", "split", "group", "attribute"):
        # the zero byte separates columns: without it, values could move from one column to the next unnoticed
        digest.update("\n".join(ordered[column].astype(str)).encode() + b"\0")
    return digest.hexdigest()[:16]


def data_version(manifest: Table, images: np.ndarray) -> str:
    """Return the manifest's fingerprint, a dash, and 8 hex digits of a SHA-256 over the images.

    images: uint8, N x H x W x 3. The hash covers their shape and the content of up to 1,000 of them, evenly spread.
    Results of different data versions are not comparable.
    """
    digest = hashlib.sha256(str(images.shape).encode())
    for row in np.linspace(0, len(images) - 1, min(len(images), 1000)).astype(int):
        digest.update(np.ascontiguousarray(images[row]).tobytes())
    return f"{fingerprint(manifest)}-{digest.hexdigest()[:8]}"


def class_names(manifest: Table) -> list[str]:
    """Return the class names, ordered by label (as numbers: 2 before 10)."""
    pairs = manifest[["label", "class_name"]].drop_duplicates().sort_values("label")
    return [str(name) for name in pairs["class_name"]]
