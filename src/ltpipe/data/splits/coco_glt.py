"""MSCOCO-GLT (Tang et al., ECCV 2022): objects with many binary attributes; Test-GBL has balanced attributes.

An image is a patch of a photograph, around one object. The splits, in the order in which they are drawn:

    test_gbl    `test` patches of each class, chosen one after the other among the patches that have an attribute: each
                time the patch after which the histogram of attributes is most even (smallest standard deviation of the
                normalised histogram)
    test_cbl    `test` patches of each class, at random
    pool        min(int(largest * (1/rho)^(c/(C-1))), all that are left) patches of class c, at random
    test_glt    drawn from the pool
    val         drawn from the rest of the pool
    train_glt   the rest of the pool
    train_cbl   `train_cbl` patches of each class that are in no test split and not in val, at random

Groups are by the class sizes of train_glt, val and test_glt together. `attribute` is the third of its class to which a
patch belongs, 0 the most typical: patches are sorted by the dot product of the class's attribute frequencies and the
patch's attribute vector, normalised to length 1.

No source is in two roles: if the index's `source` is the photograph, a split leaves out patches of photographs that an
earlier split of another role has (in the order tests, val, train), and the totals are below the published ones.

Differences from the authors: they draw a second set of splits for Train-CBL, with tests of half the size, so their ALT
results are on another test set. Here the tests are the same, so the smallest class (1,358 patches, 400 of them in
tests) allows fewer training patches. The authors draw with Python's random module, so their patches are not the same.

The index's attrs must have `attribute_names` and `attribute_bits`: base64 of np.packbits, one row of bytes per image.
"""

import base64

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.sampling.class_sizes import exponential_sizes
from ltpipe.data.sampling.rows import EXAMPLES, Part, build_manifest, labels_by_size, rows_by_class
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table

THIRDS = 3


class Config(Spec):
    """The options of this split kind."""

    test: int = Field(200, gt=0, description="patches of each class in test_gbl, and in test_cbl")
    test_glt: int = Field(5800, gt=0, description="patches of test_glt, all classes together")
    val: int = Field(2900, gt=0, description="patches of val, all classes together")
    largest: int = Field(64_600, gt=0, description="patches of the largest class in the pool")
    rho: float = Field(200, ge=1, description="imbalance ratio of the pool: patches of the largest / smallest class")
    train_cbl: int = Field(900, gt=0, description="patches of each class in train_cbl")
    groups: Groups = Field(description="rule that gives each class its group, by train_glt, val and test_glt together")
    seed: int = Field(25, ge=0, lt=2**32, description="seed of all draws")


def unpack_attributes(index: Table) -> np.ndarray:
    """Return the attributes of each index row, N x A, 0 or 1, float32.

    Raises Refused if the index's attrs lack them, or if their length does not fit the index.
    """
    names, packed = index.attrs.get("attribute_names"), index.attrs.get("attribute_bits")
    if not names or not packed:
        raise Refused("coco_glt: the index has no attribute_bits; source: mscoco_glt provides them")
    flat = np.frombuffer(base64.b64decode(packed), dtype=np.uint8)
    if len(flat) != len(index) * -(-len(names) // 8):  # bytes of a row, rounded up
        raise Refused(f"coco_glt: {len(flat)} bytes of attribute_bits for {len(index)} rows of {len(names)} attributes")
    return np.unpackbits(flat.reshape(len(index), -1), axis=1, count=len(names)).astype(np.float32)


def choose_balanced(attributes: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of `count` rows in the order in which they are chosen; attributes: N x A, 0 or 1.

    Each step minimises the standard deviation of (h + v) / sum(h + v), where h is the histogram of the chosen rows and
    v a candidate; of equal candidates, the first. Raises Refused if too few rows have an attribute.
    """
    size = attributes.sum(axis=1, dtype=np.float64)
    free = size > 0
    if free.sum() < count:
        raise Refused(f"coco_glt: {int(free.sum())} patches of a class have an attribute, test wants {count}")
    # The mean of (h + v) / sum(h + v) is 1/A for any v, so it is enough to compare
    #     |h + v|^2 / sum(h + v)^2 = (|h|^2 + 2 h.v + |v|^2) / (sum h + sum v)^2.
    # For binary v, sum v = |v|^2 = size. All sums are integers, exact in float32, so threads do not change the choice.
    columns = np.ascontiguousarray(attributes.T)
    dots, squares, total = np.zeros(len(attributes), dtype=np.float32), 0.0, 0.0  # h.v of each row, |h|^2, sum h
    chosen = np.empty(count, dtype=np.int64)
    for step in range(count):
        spread = (squares + 2 * dots + size) / np.maximum(total + size, 1) ** 2
        chosen[step] = best = int(np.argmin(np.where(free, spread, np.inf)))
        free[best] = False
        squares, total = squares + 2 * float(dots[best]) + size[best], total + size[best]
        dots += columns[attributes[best] > 0].sum(axis=0)  # h grows by the chosen row: sum the columns that it has
    return chosen


def typicality_thirds(attributes: np.ndarray) -> np.ndarray:
    """Return 0, 1 or 2 for each row of a class, N: 0 for the most typical third; ties in row order."""
    size = np.maximum(attributes.sum(axis=1, dtype=np.float64), 1)  # squared length of a binary vector
    counts = attributes.sum(axis=0, dtype=np.float64)
    typical = (attributes @ counts.astype(np.float32)).astype(np.float64) / np.sqrt(size)
    third = np.empty(len(size), dtype=np.int64)
    third[np.argsort(-typical, kind="stable")] = np.arange(len(size)) * THIRDS // len(size)
    return third


def draw_manifest(index: Table, config: Config) -> Table:
    """Return the manifest of `index`, without the columns id and row.

    Raises Refused if a class or the pool has too few patches, or if the index has no attribute vectors.
    """
    labels, attributes = index["label"].to_numpy(dtype=np.int64), unpack_attributes(index)
    all_rows = np.arange(len(index))
    labels = labels_by_size(labels, all_rows)[labels]
    class_rows = rows_by_class(labels, all_rows, int(labels.max()) + 1)
    _require_patches(class_rows, 2 * config.test, "test_gbl and test_cbl")
    attribute = np.full(len(index), -1)
    for rows in class_rows:
        attribute[rows] = typicality_thirds(attributes[rows])
    parts = _PatchDraw(index, class_rows, config).draw_parts(attributes)
    pool = np.concatenate([rows for _, name, rows in parts if name in ("train_glt", "val", "test_glt")])
    groups = config.groups.of_classes(np.bincount(labels[pool], minlength=len(class_rows)))
    return build_manifest(index, parts, labels, groups, attribute)


def _require_patches(class_rows: list[np.ndarray], wanted: int, split: str) -> None:
    """Raise Refused if a class has fewer than `wanted` rows."""
    short = [f"class {c} has {len(rows)}" for c, rows in enumerate(class_rows) if len(rows) < wanted]
    if short:
        raise Refused(f"coco_glt: {wanted} patches of each class are wanted for {split}: {', '.join(short[:EXAMPLES])}")


class _PatchDraw:
    """Draws the splits one after the other; no split takes a source that an earlier split of another role has."""

    def __init__(self, index: Table, class_rows: list[np.ndarray], config: Config) -> None:
        self.class_rows, self.config = class_rows, config
        # sources as numbers: np.isin on texts would be slow
        self.source = np.unique(index["source"].to_numpy(dtype=str), return_inverse=True)[1]
        self.random = np.random.RandomState(config.seed)

    def draw_parts(self, attributes: np.ndarray) -> list[Part]:
        """Return role, split and rows of every split; attributes: N x A, 0 or 1. The order of draws is fixed."""
        config = self.config
        gbl = np.concatenate([rows[choose_balanced(attributes[rows], config.test)] for rows in self.class_rows])
        cbl = np.concatenate([rows[: config.test] for rows in self._shuffle_free_rows(used=gbl)])
        tests = np.concatenate([gbl, cbl])
        pool = self._draw_pool(self._shuffle_free_rows(used=tests, held=tests))
        glt, rest = np.split(pool, [config.test_glt])
        rest = self._without_sources_of(rest, glt)
        val, train = np.split(rest, [config.val])
        train = self._without_sources_of(train, val)
        held = np.concatenate([tests, glt, val])
        # train_cbl may share patches with train_glt: both have the role train
        free_rows = self._shuffle_free_rows(used=held, held=held)
        _require_patches(free_rows, config.train_cbl, "train_cbl")
        train_cbl = np.concatenate([rows[: config.train_cbl] for rows in free_rows])
        tests_by_name: list[Part] = [("test", "test_gbl", gbl), ("test", "test_cbl", cbl), ("test", "test_glt", glt)]
        return [("train", "train_glt", train), ("train", "train_cbl", train_cbl), ("val", "val", val), *tests_by_name]

    def _draw_pool(self, free_rows: list[np.ndarray]) -> np.ndarray:
        """Return the rows of the pool, shuffled over classes; free_rows: of each class, shuffled."""
        config = self.config
        sizes = exponential_sizes(config.largest, config.rho, len(free_rows))
        pool = np.concatenate([rows[:n] for rows, n in zip(free_rows, sizes, strict=True)])
        if config.test_glt + config.val >= len(pool):
            raise Refused(f"coco_glt: test_glt and val want all of the pool's {len(pool)} patches and more")
        return self.random.permutation(pool)

    def _shuffle_free_rows(self, used: np.ndarray, held: np.ndarray | None = None) -> list[np.ndarray]:
        """Return the shuffled rows of each class that are not in `used`, and whose source no row of `held` has."""
        free = np.ones(len(self.source), dtype=bool)
        free[used] = False
        if held is not None:
            free &= ~np.isin(self.source, self.source[held])
        return [self.random.permutation(rows[free[rows]]) for rows in self.class_rows]

    def _without_sources_of(self, rows: np.ndarray, held: np.ndarray) -> np.ndarray:
        return rows[~np.isin(self.source[rows], self.source[held])]
