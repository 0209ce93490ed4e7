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
    split       train_glt, train_cbl, val, test_cbl, ...: the name begins with the role
    group       many, medium or few: a property of the class
    attribute   rank of the attribute inside its class, 0 the most frequent; -1 if the data has none (int64)

attrs["attributes"], if attributes have names: for each class the names of its attributes, by rank.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
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
BLOCK = 16 * 2**20  # bytes of images that are hashed at once; larger blocks are no faster


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


def role_of(split: str) -> str | None:
    """Return the role with which a split's name begins, as a whole word: test_cbl has the role test; None: no role."""
    word = split.partition("_")[0]
    return word if word in ROLES else None


def fingerprint(manifest: Table) -> str:
    """Return the first 16 hex digits of a SHA-256 over all columns, in order of id; the order of rows does not matter.

    Of `file` only the part after the last slash counts: in which folders the images lie differs between machines
    (ILSVRC val lies in class folders or in one). It does not see the content of the images; `data_version` does. If
    training reads whole pictures, attrs["originals"] is a digest of their files, and counts too, as do the names of
    attributes.
    """
    ordered = manifest.sort_values("id")
    digest = hashlib.sha256()
    for column in COLUMNS:
        values = ordered[column].astype(str).tolist()
        if column == "file":
            values = [value.rpartition("/")[2] for value in values]
        # the zero byte separates columns: without it, values could move from one column to the next unnoticed
        digest.update("\n".join(values).encode() + b"\0")
    digest.update(manifest.attrs.get("originals", "").encode())
    if names := manifest.attrs.get("attributes"):
        digest.update(b"\0" + json.dumps(names).encode())
    return digest.hexdigest()[:16]


def with_attribute_names(rows: Table, manifest: Table) -> Table:
    """Return rows (columns label and attribute) with the column attribute_name, if the manifest has names."""
    names = manifest.attrs.get("attributes")
    if not names:
        return rows
    pairs = zip(rows["label"], rows["attribute"], strict=True)
    return rows.assign(attribute_name=[names[label][rank] if rank >= 0 else "" for label, rank in pairs])


def data_version(manifest: Table, images: np.ndarray) -> str:
    """Return the manifest's fingerprint, a dash, and the first 8 hex digits of `digest_images`.

    images: uint8, N x H x W x 3. Results of different data versions are not comparable.
    """
    return f"{fingerprint(manifest)}-{digest_images(images)[:8]}"


def digest_images(images: np.ndarray, threads: int | None = None) -> str:
    """Return a SHA-256, in hex digits, over shape, type and every byte of the images.

    images: N x ..., in memory or mapped: blocks of whole images are read one after another, so a mapped array may be
    larger than the memory. threads: default: one for each CPU; the digest does not depend on it.
    """
    step = max(1, BLOCK * len(images) // max(images.nbytes, 1))

    def digest_block(start: int) -> bytes:
        block = np.ascontiguousarray(images[start : start + step])
        return hashlib.sha256(block.reshape(-1).view(np.uint8).data).digest()

    whole = hashlib.sha256(f"{images.shape} {images.dtype.str}".encode())
    # hashlib works without the interpreter's lock, so threads read and hash at the same time
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for digest in pool.map(digest_block, range(0, len(images), step)):
            whole.update(digest)
    return whole.hexdigest()


def class_names(manifest: Table) -> list[str]:
    """Return the class names, ordered by label (as numbers: 2 before 10)."""
    pairs = manifest[["label", "class_name"]].drop_duplicates().sort_values("label")
    return [str(name) for name in pairs["class_name"]]
