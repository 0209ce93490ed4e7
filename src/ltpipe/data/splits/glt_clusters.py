"""ImageNet-GLT (Tang et al., ECCV 2022): classes and attributes unbalanced, the attribute being clusters of a class.

From the official training images alone, in the authors' order of steps:

    clusters    k of each class (the index's attributes, see ltpipe.clustering), sorted by size and merged evenly into
                ranks 0, 1, 2; a rank lists its larger cluster first, each cluster in index order
    classes     numbered by their images, most first
    test_gbl    the first a images of each rank, a = min(test_gbl, a quarter of the class's smallest rank)
    test_cbl    the next test_cbl[rank] images
    pool        sizes[class] images, divided by `shares` over the ranks, the next ones of each rank, as far as there are
    test_glt    drawn from the pool, classes and attributes as unbalanced as in training
    val         drawn from the rest of the pool: validation is cut from the training distribution
    train_glt   the rest of the pool
    train_cbl   the first train_cbl[rank] images of each rank that no test and no validation split holds

The groups are those of the class sizes of the pool (of train_glt, val and test_glt together), which follow `sizes`.

Where this differs from the authors: their k-means is unseeded; their Train-CBL is drawn apart and shares images with
Test-GLT and val, here no image is in two roles; how many images their pool has depends on how far their clusters reach
in the largest classes. `pool` states their total: other clusters that reach further have their largest classes cut to
it, others that reach less far have every size multiplied.

authors: with the authors' own files their splits are taken as they are, image by image. Train-CBL then loses its images
that are in val or Test-GLT of the other file.
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
from ltpipe.data.sampling.rows import EXAMPLES, Part, assemble, by_class, by_size, match, official, renumber
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table

Positive = Annotated[int, Field(gt=0)]
ROLES = {"train_glt": "train", "train_cbl": "train", "val": "val"}
POOL = ("train_glt", "val", "test_glt")


class Authors(Spec):
    """The authors' files: long_tail has Train-GLT, val and the tests, balanced has Train-CBL."""

    long_tail: str
    balanced: str

    def files(self) -> frozenset[str]:
        return frozenset({self.long_tail, self.balanced})


class Config(Spec):
    """Sizes of one class for each rank (test_cbl, train_cbl), of one class and rank (test_gbl), in all (the others)."""

    official: str = Field("train", description="official split of the source from which everything is drawn")
    clusters: int = Field(6, ge=2, description="clusters of each class: the index's attributes are 0..clusters-1")
    authors: Authors | None = None
    sizes: Sizes = Field(description="images of each class in the pool, largest class first")
    pool: Positive | None = Field(None, description="images of the pool; default: what sizes and clusters give")
    shares: tuple[Positive, ...] = Field((7, 2, 1), min_length=2)
    test_gbl: Positive = 20
    test_cbl: tuple[Positive, ...] = (42, 12, 6)
    train_cbl: tuple[Positive, ...] = (80, 23, 11)
    test_glt: Positive = 60_000
    val: Positive = 30_000
    groups: Groups
    seed: int = Field(25, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _ranks(self) -> "Config":
        ranks = len(self.shares)
        if not ranks == len(self.test_cbl) == len(self.train_cbl):
            raise ValueError("shares, test_cbl and train_cbl must be equally long: one number a rank")
        if self.clusters % ranks:
            raise ValueError(f"{self.clusters} clusters cannot be merged evenly into {ranks} ranks (shares)")
        return self


def merge(clusters: np.ndarray, rows: np.ndarray, count: int, ranks: int) -> list[np.ndarray]:
    """`rows` of one class by rank: its clusters by size, largest first (ties by number), merged evenly."""
    order = np.argsort(-np.bincount(clusters, minlength=count), kind="stable")
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    listed = np.argsort(place[clusters], kind="stable")
    cuts = np.cumsum(np.bincount(place[clusters] * ranks // count, minlength=ranks))[:-1]
    return np.split(rows[listed], cuts)


def divide(sizes: np.ndarray, shares: tuple[int, ...], available: np.ndarray) -> np.ndarray:
    """Images of each class and rank, C x R: the class's size by `shares`, truncated, as far as available."""
    parts = np.array(shares, dtype=np.int64)
    return np.minimum(sizes[:, None] * parts // parts.sum(), available)


def fit(sizes: np.ndarray, shares: tuple[int, ...], available: np.ndarray, total: int) -> np.ndarray:
    """As `divide`, but `total` images in all: too many, and no class may be larger than some number; too few, and every
    size grows by one factor. Raises Refused where no factor is enough."""
    if divide(sizes, shares, available).sum() >= total:
        found = _first(
            range(int(sizes.max()) + 1), total, lambda cap: divide(np.minimum(sizes, cap), shares, available)
        )
    else:
        grown = range(1_000_000, 1_000_000_000, 10)
        found = _first(grown, total, lambda millionths: divide(sizes * millionths // 1_000_000, shares, available))
    if found is None:
        raise Refused(f"glt_clusters: no multiple of sizes, divided by shares, gives a pool of {total} images")
    while found.sum() > total:
        found[np.unravel_index(np.argmax(found), found.shape)] -= 1
    return found


def _first(candidates: range, total: int, of: Callable[[int], np.ndarray]) -> np.ndarray | None:
    """`of` the first candidate that gives at least `total`; `of` grows with the candidate."""
    at = bisect_left(candidates, total, key=lambda candidate: int(of(candidate).sum()))
    return None if at == len(candidates) else of(candidates[at])


def draw_manifest(index: Table, config: Config) -> Table:
    """The manifest of `index`, without the columns id and row. Raises Refused where a class has too few images."""
    return _published(index, config, config.authors) if config.authors else _drawn(index, config)


def _drawn(index: Table, config: Config) -> Table:
    rows = official(index, config.official)
    labels = index["label"].to_numpy(dtype=np.int64)
    labels = by_size(labels, rows)[labels]
    classes, ranks = int(labels.max()) + 1, len(config.shares)
    if len(config.sizes) != classes:
        raise Refused(f"glt_clusters: sizes states {len(config.sizes)} classes, the index has {classes}")
    clusters = _clusters(index, rows, config.clusters)
    own = by_class(labels, rows, classes)
    ranked = [merge(clusters[each], each, config.clusters, ranks) for each in own]
    attribute = np.full(len(index), -1)
    for number in range(ranks):
        attribute[np.concatenate([each[number] for each in ranked])] = number
    parts = _RankedDraw(ranked, config, len(index)).parts()
    return assemble(index, parts, labels, _groups(parts, labels, classes, config), attribute)


def _clusters(index: Table, rows: np.ndarray, count: int) -> np.ndarray:
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
    """The rows of every class and rank, taken from the front."""

    def __init__(self, ranked: list[list[np.ndarray]], config: Config, images: int) -> None:
        self.ranked, self.config, self.images = ranked, config, images
        self.sizes = np.array([[len(rows) for rows in each] for each in ranked])
        self.taken = np.zeros_like(self.sizes)

    def parts(self) -> list[Part]:
        """Role, split and rows of every split."""
        config = self.config
        a = np.minimum(config.test_gbl, self.sizes.min(axis=1) // 4)
        gbl = self._take(np.tile(a[:, None], (1, self.sizes.shape[1])))
        self._enough(np.array(config.test_cbl), "test_cbl")
        cbl = self._take(np.tile(config.test_cbl, (len(self.sizes), 1)))
        glt, val, train = self._split(self._pool())
        held = np.concatenate([gbl, cbl, glt, val])
        splits = {"train_glt": train, "train_cbl": self._balanced(held), "val": val}
        splits |= {"test_cbl": cbl, "test_gbl": gbl, "test_glt": glt}
        return [(ROLES.get(name, "test"), name, rows) for name, rows in splits.items()]

    def _take(self, counts: np.ndarray) -> np.ndarray:
        """The next counts[class, rank] rows of each list."""
        ends = self.taken + counts
        found = [
            rows[start:end]
            for each, starts, stops in zip(self.ranked, self.taken, ends, strict=True)
            for rows, start, end in zip(each, starts, stops, strict=True)
        ]
        self.taken = ends
        return np.concatenate(found)

    def _enough(self, wanted: np.ndarray, split: str) -> None:
        left = self.sizes - self.taken
        short = np.argwhere(left < wanted)
        if len(short):
            lines = [f"class {c} rank {r} has {left[c, r]} of {wanted[r]}" for c, r in short[:EXAMPLES]]
            raise Refused(
                f"glt_clusters: too few images for {split} in {len(short)} ranks: {', '.join(lines)} "
                f"(classes by size; lower {split}, or take other clusters)"
            )

    def _pool(self) -> np.ndarray:
        left, config = self.sizes - self.taken, self.config
        sizes = np.array(config.sizes, dtype=np.int64)
        if config.pool is None:
            return self._take(divide(sizes, config.shares, left))
        return self._take(fit(sizes, config.shares, left, config.pool))

    def _split(self, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """test_glt, val and train_glt, at random."""
        config = self.config
        if config.test_glt + config.val >= len(pool):
            raise Refused(f"glt_clusters: test_glt and val want all of the pool's {len(pool)} images and more")
        mixed = np.random.RandomState(config.seed).permutation(pool)
        glt, val, train = np.split(mixed, [config.test_glt, config.test_glt + config.val])
        return glt, val, train

    def _balanced(self, held: np.ndarray) -> np.ndarray:
        """The first train_cbl[rank] rows of each class and rank that are not `held`."""
        free = np.ones(self.images, dtype=bool)
        free[held] = False
        rest = _RankedDraw([[rows[free[rows]] for rows in each] for each in self.ranked], self.config, self.images)
        rest._enough(np.array(self.config.train_cbl), "train_cbl")
        return rest._take(np.tile(self.config.train_cbl, (len(self.ranked), 1)))


def _groups(parts: list[Part], labels: np.ndarray, classes: int, config: Config) -> np.ndarray:
    pool = np.concatenate([rows for _, name, rows in parts if name in POOL])
    return config.groups.of(np.bincount(labels[pool], minlength=classes))


def _published(index: Table, config: Config, authors: Authors) -> Table:
    """The authors' splits, as their files state them."""
    listed = glt_json.read(Path(authors.long_tail), glt_json.LONG_TAIL)
    listed |= glt_json.read(Path(authors.balanced), glt_json.BALANCED)
    names, labels = index["file"].to_numpy(dtype=object), index["label"].to_numpy(dtype=np.int64)
    rows = {split: match(names, one.files, "name", f"the GLT authors' {split}") for split, one in listed.items()}
    stated = np.concatenate([one.labels for one in listed.values()])
    labels = renumber(labels, np.concatenate(list(rows.values())), stated, "the GLT authors' files")[labels]
    attribute = np.full(len(index), -1)
    for split, one in listed.items():
        attribute[rows[split]] = one.attributes
    rows["train_cbl"] = np.setdiff1d(rows["train_cbl"], np.concatenate([rows["val"], rows["test_glt"]]))
    parts: list[Part] = [(ROLES.get(split, "test"), split, own) for split, own in rows.items()]
    return assemble(index, parts, labels, _groups(parts, labels, int(labels.max()) + 1, config), attribute)
