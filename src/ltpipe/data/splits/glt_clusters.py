"""ImageNet-GLT (Tang et al., ECCV 2022): classes and attributes unbalanced; the attributes are clusters in a class.

All splits are drawn from the official training images, in the order of the authors' code:

    clusters    k clusters of each class (the index's attributes, see ltpipe.clustering), sorted by size and merged into
                ranks 0, 1, 2, equally many clusters per rank. A rank lists the images of its larger cluster first, each
                cluster in index order. Tests, pool and train_cbl take images from the front of these lists.
    classes     numbered by their images, the largest class first
    test_gbl    the first a images of each rank, a = min(test_gbl, a quarter of the class's smallest rank)
    test_cbl    the next test_cbl[rank] images
    pool        the next sizes[class] images, divided over the ranks by `shares`; fewer if a rank has fewer
    test_glt    drawn from the pool, so classes and attributes are as unbalanced as in training
    val         drawn from the rest of the pool: validation images are of the training distribution
    train_glt   the rest of the pool
    train_cbl   the first train_cbl[rank] images of each rank that are in no test split and not in val

Groups are by the class sizes of the pool (train_glt, val and test_glt together), which follow `sizes`.

Differences from the authors: their k-means has no seed. Their Train-CBL is drawn separately and shares images with
Test-GLT and val; here no image is in two roles. The number of images in their pool depends on how many images their
clusters have in the largest classes. `pool` states their total: if other clusters give more images, the largest classes
are cut until the total fits; if they give fewer, all sizes are multiplied by one factor.

With `authors`, the splits are read from the authors' own files, image by image. Train-CBL then loses the images that
the other file has in val or Test-GLT.
"""

from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.acquire import glt_json
from ltpipe.data.sampling.class_sizes import Sizes
from ltpipe.data.sampling.rows import (
    EXAMPLES,
    Part,
    build_manifest,
    labels_by_size,
    labels_from_lists,
    match_files,
    official_rows,
    rows_by_class,
)
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table

Positive = Annotated[int, Field(gt=0)]
ROLES = {"train_glt": "train", "train_cbl": "train", "val": "val"}
POOL = ("train_glt", "val", "test_glt")


class Authors(Spec):
    """The authors' own files, from which the splits are read instead of drawn."""

    long_tail: str = Field(description="path of the file with Train-GLT, val and the three tests")
    balanced: str = Field(description="path of the file with Train-CBL")

    def files(self) -> frozenset[str]:
        return frozenset({self.long_tail, self.balanced})


class Config(Spec):
    """The options of this split kind."""

    official: str = Field("train", description="official split of the source from which all splits are drawn")
    clusters: int = Field(6, ge=2, description="clusters of each class: the index's attributes are 0..clusters-1")
    authors: Authors | None = Field(None, description="the authors' own files; null: draw the splits")
    sizes: Sizes = Field(description="images of each class in the pool, largest class first")
    pool: Positive | None = Field(
        None, description="images of the pool, all classes together; default: what sizes and clusters give"
    )
    shares: tuple[Positive, ...] = Field(
        (7, 2, 1), min_length=2, description="relative number of pool images of each attribute rank, rank 0 first"
    )
    test_gbl: Positive = Field(20, description="test_gbl images of each class and rank, at most")
    test_cbl: tuple[Positive, ...] = Field((42, 12, 6), description="test_cbl images of each class, for each rank")
    train_cbl: tuple[Positive, ...] = Field((80, 23, 11), description="train_cbl images of each class, for each rank")
    test_glt: Positive = Field(60_000, description="images of test_glt, all classes together")
    val: Positive = Field(30_000, description="images of val, all classes together")
    groups: Groups = Field(description="rule that gives each class its group, by train_glt, val and test_glt together")
    seed: int = Field(25, ge=0, lt=2**32, description="seed of the division of the pool")

    @model_validator(mode="after")
    def _check_ranks(self) -> "Config":
        ranks = len(self.shares)
        if not ranks == len(self.test_cbl) == len(self.train_cbl):
            raise ValueError("shares, test_cbl and train_cbl must be equally long: one number a rank")
        if self.clusters % ranks:
            raise ValueError(f"{self.clusters} clusters cannot be merged evenly into {ranks} ranks (shares)")
        return self


def merge_clusters(clusters: np.ndarray, rows: np.ndarray, count: int, ranks: int) -> list[np.ndarray]:
    """Return the rows of one class by rank.

    The clusters are sorted by size, largest first (ties by number), and count / ranks of them make a rank. In a rank
    the rows of the larger cluster come first. clusters: of each of `rows`, N, 0..count-1.
    """
    order = np.argsort(-np.bincount(clusters, minlength=count), kind="stable")
    place = np.empty(count, dtype=np.int64)  # of a cluster, in order of size
    place[order] = np.arange(count)
    listed = np.argsort(place[clusters], kind="stable")
    cuts = np.cumsum(np.bincount(place[clusters] * ranks // count, minlength=ranks))[:-1]
    return np.split(rows[listed], cuts)


def divide_by_shares(sizes: np.ndarray, shares: tuple[int, ...], available: np.ndarray) -> np.ndarray:
    """Return the images of each class and rank, C x R: sizes, C, divided by `shares` and truncated.

    No number is larger than `available`, C x R.
    """
    parts = np.array(shares, dtype=np.int64)
    return np.minimum(sizes[:, None] * parts // parts.sum(), available)


def divide_to_total(sizes: np.ndarray, shares: tuple[int, ...], available: np.ndarray, total: int) -> np.ndarray:
    """Return the images of each class and rank, C x R, as `divide_by_shares`, but `total` images together.

    If the sizes give too many images, no class may be larger than some limit; if they give too few, every size is
    multiplied by one factor. Raises Refused if no factor below 1000 is enough.
    """
    table: np.ndarray | None
    if divide_by_shares(sizes, shares, available).sum() >= total:
        limits = range(int(sizes.max()) + 1)
        table = _first_table(limits, total, lambda limit: divide_by_shares(np.minimum(sizes, limit), shares, available))
    else:
        # factors 1, 1.00001, ... below 1000, in millionths: integers give the same result on every machine
        factors = range(1_000_000, 1_000_000_000, 10)
        table = _first_table(
            factors, total, lambda factor: divide_by_shares(sizes * factor // 1_000_000, shares, available)
        )
    if table is None:
        raise Refused(f"glt_clusters: no multiple of sizes, divided by shares, gives a pool of {total} images")
    # a step of the limit or the factor adds several images at once: take the surplus from the largest numbers
    while table.sum() > total:
        table[np.unravel_index(np.argmax(table), table.shape)] -= 1
    return table


def _first_table(candidates: range, total: int, divide: Callable[[int], np.ndarray]) -> np.ndarray | None:
    """Return `divide` of the first candidate for which its sum is at least `total`, or None.

    The sum must not decrease with the candidate, because the search is by bisection.
    """
    at = bisect_left(candidates, total, key=lambda candidate: int(divide(candidate).sum()))
    return None if at == len(candidates) else divide(candidates[at])


def draw_manifest(index: Table, config: Config) -> Table:
    """Return the manifest of `index`, without the columns id and row.

    Raises Refused if a class has too few images, or if clusters, sizes or the authors' files do not fit the index.
    """
    return _read_authors_splits(index, config, config.authors) if config.authors else _draw_splits(index, config)


def _draw_splits(index: Table, config: Config) -> Table:
    rows = official_rows(index, config.official)
    labels = index["label"].to_numpy(dtype=np.int64)
    labels = labels_by_size(labels, rows)[labels]
    classes, ranks = int(labels.max()) + 1, len(config.shares)
    if len(config.sizes) != classes:
        raise Refused(f"glt_clusters: sizes states {len(config.sizes)} classes, the index has {classes}")
    clusters = _read_clusters(index, rows, config.clusters)
    class_rows = rows_by_class(labels, rows, classes)
    ranked = [merge_clusters(clusters[rows], rows, config.clusters, ranks) for rows in class_rows]
    attribute = np.full(len(index), -1)
    for rank in range(ranks):
        attribute[np.concatenate([rank_rows[rank] for rank_rows in ranked])] = rank
    parts = _RankedDraw(ranked, config, len(index)).draw_parts()
    return build_manifest(index, parts, labels, _group_classes(parts, labels, classes, config), attribute)


def _read_clusters(index: Table, rows: np.ndarray, count: int) -> np.ndarray:
    """Return the cluster of every index row, int64. Raises Refused if one of `rows` has none of 0..count-1."""
    clusters = index["attribute"].to_numpy(dtype=np.int64)
    wrong = rows[(clusters[rows] < 0) | (clusters[rows] >= count)]
    if len(wrong):
        raise Refused(
            f"glt_clusters: every image needs a cluster of 0..{count - 1} (option clusters); {len(wrong)} have none "
            f"(image {index['image'].iloc[wrong[0]]}: attribute {clusters[wrong[0]]}): add a block cluster to the "
            "benchmark, or take a source whose images have attributes"
        )
    return clusters


class _RankedDraw:
    """Takes rows from the front of each class's and rank's list.

    ranked: for each class, its rows by rank; images: number of index rows.
    """

    def __init__(self, ranked: list[list[np.ndarray]], config: Config, images: int) -> None:
        self.ranked, self.config, self.images = ranked, config, images
        self.sizes = np.array([[len(rows) for rows in rank_rows] for rank_rows in ranked])  # C x R
        self.taken = np.zeros_like(self.sizes)  # how many rows of each list are in use already

    def draw_parts(self) -> list[Part]:
        """Return role, split and rows of every split."""
        config = self.config
        a = np.minimum(config.test_gbl, self.sizes.min(axis=1) // 4)
        gbl = self._take(np.tile(a[:, None], (1, self.sizes.shape[1])))
        self._require_left(np.array(config.test_cbl), "test_cbl")
        cbl = self._take(np.tile(config.test_cbl, (len(self.sizes), 1)))
        glt, val, train = self._divide_pool(self._take_pool())
        held = np.concatenate([gbl, cbl, glt, val])
        splits = {"train_glt": train, "train_cbl": self._choose_train_cbl(held), "val": val}
        splits |= {"test_cbl": cbl, "test_gbl": gbl, "test_glt": glt}
        return [(ROLES.get(name, "test"), name, rows) for name, rows in splits.items()]

    def _take(self, counts: np.ndarray) -> np.ndarray:
        """Return the next counts[class, rank] rows of each list, one list after the other."""
        ends = self.taken + counts
        pieces = [
            rows[start:end]
            for rank_rows, starts, stops in zip(self.ranked, self.taken, ends, strict=True)
            for rows, start, end in zip(rank_rows, starts, stops, strict=True)
        ]
        self.taken = ends
        return np.concatenate(pieces)

    def _require_left(self, wanted: np.ndarray, split: str) -> None:
        """Raise Refused if a class has fewer than wanted[rank] rows left; wanted: R."""
        left = self.sizes - self.taken
        short = np.argwhere(left < wanted)
        if len(short):
            lines = [f"class {c} rank {r} has {left[c, r]} of {wanted[r]}" for c, r in short[:EXAMPLES]]
            raise Refused(
                f"glt_clusters: too few images for {split} in {len(short)} ranks: {', '.join(lines)} "
                f"(classes by size; lower {split}, or take other clusters)"
            )

    def _take_pool(self) -> np.ndarray:
        left, config = self.sizes - self.taken, self.config
        sizes = np.array(config.sizes, dtype=np.int64)
        if config.pool is None:
            return self._take(divide_by_shares(sizes, config.shares, left))
        return self._take(divide_to_total(sizes, config.shares, left, config.pool))

    def _divide_pool(self, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the rows of test_glt, val and train_glt, at random."""
        config = self.config
        if config.test_glt + config.val >= len(pool):
            raise Refused(f"glt_clusters: test_glt and val want all of the pool's {len(pool)} images and more")
        mixed = np.random.RandomState(config.seed).permutation(pool)
        glt, val, train = np.split(mixed, [config.test_glt, config.test_glt + config.val])
        return glt, val, train

    def _choose_train_cbl(self, held: np.ndarray) -> np.ndarray:
        """Return the first train_cbl[rank] rows of each class and rank that are not in `held`."""
        free = np.ones(self.images, dtype=bool)
        free[held] = False
        free_rows = [[rows[free[rows]] for rows in rank_rows] for rank_rows in self.ranked]
        # a new draw, which starts again at the front of what is free: train_cbl may share rows with train_glt
        draw = _RankedDraw(free_rows, self.config, self.images)
        draw._require_left(np.array(self.config.train_cbl), "train_cbl")
        return draw._take(np.tile(self.config.train_cbl, (len(self.ranked), 1)))


def _group_classes(parts: list[Part], labels: np.ndarray, classes: int, config: Config) -> np.ndarray:
    """Return the group of each class, C, by the class sizes of the pool."""
    pool = np.concatenate([rows for _, name, rows in parts if name in POOL])
    return config.groups.of_classes(np.bincount(labels[pool], minlength=classes))


def _read_authors_splits(index: Table, config: Config, authors: Authors) -> Table:
    """Return the manifest of the splits in the authors' files; labels and attributes are theirs too."""
    listed = glt_json.read_glt_splits(Path(authors.long_tail), glt_json.LONG_TAIL)
    listed |= glt_json.read_glt_splits(Path(authors.balanced), glt_json.BALANCED)
    files, labels = index["file"].to_numpy(dtype=object), index["label"].to_numpy(dtype=np.int64)
    # by name, because the paths in the files are those of the authors' machine
    rows = {name: match_files(files, split.files, "name", f"the GLT authors' {name}") for name, split in listed.items()}
    listed_labels = np.concatenate([split.labels for split in listed.values()])
    all_rows = np.concatenate(list(rows.values()))
    labels = labels_from_lists(labels, all_rows, listed_labels, "the GLT authors' files")[labels]
    attribute = np.full(len(index), -1)
    for name, split in listed.items():
        attribute[rows[name]] = split.attributes
    rows["train_cbl"] = np.setdiff1d(rows["train_cbl"], np.concatenate([rows["val"], rows["test_glt"]]))
    parts: list[Part] = [(ROLES.get(name, "test"), name, split_rows) for name, split_rows in rows.items()]
    groups = _group_classes(parts, labels, int(labels.max()) + 1, config)
    return build_manifest(index, parts, labels, groups, attribute)
