"""The manifest: the one table every stage agrees on, its groups and its fingerprint.

Columns, in this order:
    id          unique: "<split>/<image>"
    image       its name in the index (an image may be in several splits of one role: Test-CBL and Test-GBL)
    source      the original image it was made from: no source is in two roles
    file        where the source keeps it: a path, or a row of the source's own array
    row         its row in the packed array of images (int64)
    label       class index from 0 (int64). In whose order, the split kind says: the source's or the lists' own
                (longtail, stratified, official_lists, glt), or by size, 0 the largest (glt_clusters, coco_glt,
                longtail with classes: size)
    class_name
    role        train, val or test
    split       train_glt, train_cbl, val, test_cbl, ...
    group       many, medium or few: a property of the class
    attribute   rank of the attribute inside its class, 0 the most frequent; -1 where the data has none (int64)
"""

import hashlib
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Spec
from ltpipe.storage.table import Table

COLUMNS = ("id", "image", "source", "file", "row", "label", "class_name", "role", "split", "group", "attribute")
ROLES = ("train", "val", "test")
GROUPS = ("many", "medium", "few")


class Groups(Spec):
    """The rule that sorts classes into many, medium and few.

    `by: rank` gives the `many` largest classes, the next `medium`, the rest (ImageNet-GLT: 400, 450, 150).
    `by: count` gives > `many` training images, < `medium` few, medium between (Kang et al., ICLR 2020: 100 and 20).
    """

    by: Literal["rank", "count"]
    many: int = Field(gt=0)
    medium: int = Field(gt=0)

    @model_validator(mode="after")
    def _order(self) -> "Groups":
        if self.by == "count" and self.medium > self.many:
            raise ValueError(f"by: count needs medium <= many, not {self.medium} > {self.many}")
        return self

    def of(self, counts: np.ndarray) -> np.ndarray:
        """Group of each class; counts: training images of each class, C. Ties in rank keep class order."""
        if self.by == "count":
            return np.where(counts > self.many, "many", np.where(counts < self.medium, "few", "medium"))
        rank = np.empty(len(counts), dtype=np.int64)
        rank[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        return np.where(rank < self.many, "many", np.where(rank < self.many + self.medium, "medium", "few"))


def fingerprint(manifest: Table) -> str:
    """First 16 hex digits of a SHA-256 over ids, labels, splits, groups and attributes, in id order.

    Says nothing of the images' content: see `data_version`.
    """
    ordered = manifest.sort_values("id")
    digest = hashlib.sha256()
    for column in ("id", "label", "split", "group", "attribute"):
        digest.update("\n".join(ordered[column].astype(str)).encode() + b"\0")
    return digest.hexdigest()[:16]


def data_version(manifest: Table, images: np.ndarray) -> str:
    """The manifest's fingerprint and, after a dash, 8 hex digits of a SHA-256 over up to 1,000 images spread evenly.

    images: uint8, N x H x W x 3. Two numbers of different data versions are not comparable.
    """
    digest = hashlib.sha256(str(images.shape).encode())
    for row in np.linspace(0, len(images) - 1, min(len(images), 1000)).astype(int):
        digest.update(np.ascontiguousarray(images[row]).tobytes())
    return f"{fingerprint(manifest)}-{digest.hexdigest()[:8]}"


def class_names(manifest: Table) -> list[str]:
    """Names in class-index order (numeric, not lexicographic)."""
    pairs = manifest[["label", "class_name"]].drop_duplicates().sort_values("label")
    return [str(name) for name in pairs["class_name"]]
