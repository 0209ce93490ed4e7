"""MSCOCO-GLT (Tang et al., ECCV 2022): objects with many binary attributes; the attributes of Test-GBL are balanced.

    test_gbl    of each class `test` patches, chosen one by one: the patch, of those with an attribute, after which the
                histogram of attributes is most even (smallest standard deviation of the normalised histogram)
    test_cbl    `test` patches of each class, at random
    pool        min(int(largest * (1/rho)^(c/(C-1))), what is left) patches of class c, at random
    test_glt    drawn from the pool; val drawn from its rest; train_glt is what remains
    train_cbl   `train_cbl` patches of each class that no test and no validation split holds, at random

The groups are those of the class sizes of the pool (train_glt, val and test_glt together). `attribute` is the third of
its class to which a patch belongs by <frequencies of the class's attributes, its attributes normalised>: 0 typical.

Where this differs from the authors: they draw a second set of splits for Train-CBL, with tests of half the size, so
that their ALT numbers are of another test set; here the tests are the same, and the smallest class (1,358 patches,
400 of them tests) allows fewer training patches. Their draws are of Python's random module; these are not theirs
image by image. No source is in two roles: where the index's `source` is the photograph, patches of a photograph that
an earlier split (tests, val, train) holds are left out, and the totals are below the published ones.

The index's attrs must hold `attribute_names`, and `attribute_bits`: base64 of np.packbits, a row an image.
"""

import base64

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.sampling.class_sizes import exponential
from ltpipe.data.sampling.rows import EXAMPLES, Part, assemble, by_class, by_size
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table

THIRDS = 3


class Config(Spec):
    """test, train_cbl: patches of each class. test_glt, val: patches in all. largest: of the pool's largest class."""

    test: int = Field(200, gt=0)
    test_glt: int = Field(5800, gt=0)
    val: int = Field(2900, gt=0)
    largest: int = Field(64_600, gt=0)
    rho: float = Field(200, ge=1)
    train_cbl: int = Field(900, gt=0)
    groups: Groups
    seed: int = Field(25, ge=0, lt=2**32)


def bits(index: Table) -> np.ndarray:
    """Attributes of each row, N x A, 0 or 1, float32. Raises Refused where the index has none."""
    names, packed = index.attrs.get("attribute_names"), index.attrs.get("attribute_bits")
    if not names or not packed:
        raise Refused("coco_glt: the index has no attribute_bits; source: mscoco_glt provides them")
    flat = np.frombuffer(base64.b64decode(packed), dtype=np.uint8)
    if len(flat) != len(index) * -(-len(names) // 8):
        raise Refused(f"coco_glt: {len(flat)} bytes of attribute_bits for {len(index)} rows of {len(names)} attributes")
    return np.unpackbits(flat.reshape(len(index), -1), axis=1, count=len(names)).astype(np.float32)


def balanced(attributes: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` rows, in the order in which they are chosen; attributes: N x A, 0 or 1.

    Minimises the standard deviation of (h + v) / sum(h + v); its mean is 1/A whatever v is, so that the sum of squares
    decides. All sums are integers, exact in float32: the choice does not depend on threads. Ties: the first row.
    """
    size = attributes.sum(axis=1, dtype=np.float64)
    free = size > 0
    if free.sum() < count:
        raise Refused(f"coco_glt: {int(free.sum())} patches of a class have an attribute, test wants {count}")
    columns = np.ascontiguousarray(attributes.T)
    dots, squares, total = np.zeros(len(attributes), dtype=np.float32), 0.0, 0.0
    chosen = np.empty(count, dtype=np.int64)
    for step in range(count):
        spread = (squares + 2 * dots + size) / np.maximum(total + size, 1) ** 2
        chosen[step] = best = int(np.argmin(np.where(free, spread, np.inf)))
        free[best] = False
        squares, total = squares + 2 * float(dots[best]) + size[best], total + size[best]
        dots += columns[attributes[best] > 0].sum(axis=0)
    return chosen


def thirds(attributes: np.ndarray) -> np.ndarray:
    """0, 1 or 2 of each row of a class, the most typical third first; ties in row order."""
    size = np.maximum(attributes.sum(axis=1, dtype=np.float64), 1)
    counts = attributes.sum(axis=0, dtype=np.float64)
    typical = (attributes @ counts.astype(np.float32)).astype(np.float64) / np.sqrt(size)
    rank = np.empty(len(size), dtype=np.int64)
    rank[np.argsort(-typical, kind="stable")] = np.arange(len(size)) * THIRDS // len(size)
    return rank


def draw_manifest(index: Table, config: Config) -> Table:
    """The manifest of `index`, without the columns id and row. Raises Refused where a class has too few patches."""
    labels, attributes = index["label"].to_numpy(dtype=np.int64), bits(index)
    everything = np.arange(len(index))
    labels = by_size(labels, everything)[labels]
    own = by_class(labels, everything, int(labels.max()) + 1)
    _enough(own, 2 * config.test, "test_gbl and test_cbl")
    attribute = np.full(len(index), -1)
    for rows in own:
        attribute[rows] = thirds(attributes[rows])
    parts = _PatchDraw(index, own, config).parts(attributes)
    pool = np.concatenate([rows for _, name, rows in parts if name in ("train_glt", "val", "test_glt")])
    groups = config.groups.of(np.bincount(labels[pool], minlength=len(own)))
    return assemble(index, parts, labels, groups, attribute)


def _enough(own: list[np.ndarray], wanted: int, split: str) -> None:
    short = [f"class {c} has {len(rows)}" for c, rows in enumerate(own) if len(rows) < wanted]
    if short:
        raise Refused(f"coco_glt: {wanted} patches of each class are wanted for {split}: {', '.join(short[:EXAMPLES])}")


class _PatchDraw:
    """The splits in the order in which they are drawn; none takes a source that another role holds."""

    def __init__(self, index: Table, own: list[np.ndarray], config: Config) -> None:
        self.own, self.config = own, config
        self.source = np.unique(index["source"].to_numpy(dtype=str), return_inverse=True)[1]
        self.random = np.random.RandomState(config.seed)

    def parts(self, attributes: np.ndarray) -> list[Part]:
        """Role, split and rows of every split."""
        config = self.config
        gbl = np.concatenate([rows[balanced(attributes[rows], config.test)] for rows in self.own])
        cbl = np.concatenate([rows[: config.test] for rows in self._shuffled(self.own, used=gbl)])
        tests = np.concatenate([gbl, cbl])
        pool = self._pool(self._shuffled(self.own, used=tests, held=tests))
        glt, rest = np.split(pool, [config.test_glt])
        rest = self._without(rest, glt)
        val, train = np.split(rest, [config.val])
        train = self._without(train, val)
        held = np.concatenate([tests, glt, val])
        level = self._shuffled(self.own, used=held, held=held)
        _enough(level, config.train_cbl, "train_cbl")
        cut = np.concatenate([rows[: config.train_cbl] for rows in level])
        tests_by_name: list[Part] = [("test", "test_gbl", gbl), ("test", "test_cbl", cbl), ("test", "test_glt", glt)]
        return [("train", "train_glt", train), ("train", "train_cbl", cut), ("val", "val", val), *tests_by_name]

    def _pool(self, left: list[np.ndarray]) -> np.ndarray:
        config = self.config
        sizes = exponential(config.largest, config.rho, len(left))
        pool = np.concatenate([rows[:n] for rows, n in zip(left, sizes, strict=True)])
        if config.test_glt + config.val >= len(pool):
            raise Refused(f"coco_glt: test_glt and val want all of the pool's {len(pool)} patches and more")
        return self.random.permutation(pool)

    def _shuffled(self, own: list[np.ndarray], used: np.ndarray, held: np.ndarray | None = None) -> list[np.ndarray]:
        """Rows of each class that are not `used` and whose source none of `held` has, shuffled."""
        free = np.ones(len(self.source), dtype=bool)
        free[used] = False
        if held is not None:
            free &= ~np.isin(self.source, self.source[held])
        return [self.random.permutation(rows[free[rows]]) for rows in own]

    def _without(self, rows: np.ndarray, held: np.ndarray) -> np.ndarray:
        return rows[~np.isin(self.source[rows], self.source[held])]
