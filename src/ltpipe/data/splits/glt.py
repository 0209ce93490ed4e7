"""The GLT construction (Tang et al., ECCV 2022) for data whose attribute is known: classes and attributes unbalanced.

The values of the attribute are merged into equally many ranks per class, the merge permuted by class, so that the
most frequent attribute differs by class. Sources are divided into train, val and test before any image is chosen.

    train_glt   exponential class sizes, attribute ranks in `shares`
    train_cbl   equal class sizes, the same shares
    val         as train_glt, smaller: validation is cut from the training distribution
    test_cbl    equal class sizes, the same shares
    test_gbl    every test source under every value of the attribute

Differs from the authors' ImageNet-GLT: attributes are given, not k-means clusters; Test-CBL and Test-GBL share their
sources (theirs share none), because a small test set would otherwise be smaller still.
"""

from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.sampling.class_sizes import exponential, shares
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table

Share = Annotated[float, Field(gt=0)]


class Config(Spec):
    """Sizes are sources per class."""

    largest: int = Field(gt=0, description="train_glt images of the largest class")
    rho: float = Field(ge=1, description="imbalance ratio of train_glt and val")
    val: int = Field(gt=0, description="val images of the largest class")
    test: int = Field(gt=0, description="test sources of each class")
    shares: tuple[Share, ...] = Field(min_length=2, description="attribute shares, most frequent rank first")
    groups: Groups
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _enough(self) -> "Config":
        if list(self.shares) != sorted(self.shares, reverse=True):
            raise ValueError(f"shares must not increase with rank: {list(self.shares)}")
        return self


def rank_of(values: int, ranks: int, classes: int, random: np.random.RandomState) -> np.ndarray:
    """Rank of each attribute value in each class, classes x values: equally many values a rank, permuted by class."""
    ladder = np.arange(values) * ranks // values
    order = np.stack([random.permutation(values) for _ in range(classes)])
    return np.take_along_axis(np.tile(ladder, (classes, 1)), np.argsort(order, axis=1), axis=1)


def draw_manifest(index: Table, config: Config) -> Table:
    """The manifest of `index`, without the columns id and row.

    Raises Refused where a class has too few sources, or where the values of the attribute cannot fill the ranks.
    """
    values, classes, ranks = index["attribute"].nunique(), index["label"].nunique(), len(config.shares)
    if values % ranks:
        raise Refused(f"glt split: {values} attribute values cannot be merged evenly into {ranks} ranks (shares)")
    random = np.random.RandomState(config.seed)
    rank = rank_of(values, ranks, classes, random)
    train = exponential(config.largest, config.rho, classes)
    if train.min() < ranks:
        label = int(train.argmin())
        raise Refused(f"glt split: class {label} gets {train[label]} training images for {ranks} ranks; lower rho")
    val = np.maximum(exponential(config.val, config.rho, classes), 1)
    level = np.full(classes, max(int(train.sum()) // classes, ranks))
    parts = []
    for label in range(classes):
        sources = random.permutation(np.sort(index.loc[index["label"] == label, "source"].unique()))
        need = config.test + val[label] + max(train[label], level[label])
        if need > len(sources):
            raise Refused(
                f"glt split: class {label} has {len(sources)} sources, {need} are needed (largest, val, test)"
            )
        test, cut, rest = np.split(sources, [config.test, config.test + val[label]])
        choose = _Chooser(rank[label], config.shares, random)
        parts += [
            ("train", "train_glt", *choose(rest[: train[label]])),
            ("train", "train_cbl", *choose(rest[: level[label]])),
            ("val", "val", *choose(cut)),
            ("test", "test_cbl", *choose(test)),
            ("test", "test_gbl", test.repeat(values), np.tile(np.arange(values), len(test))),
        ]
    return _assemble(index, parts, rank, config.groups.of(train))


class _Chooser:
    """Gives each source of one class one attribute value, ranks in exact shares."""

    def __init__(self, rank: np.ndarray, weights: tuple[float, ...], random: np.random.RandomState) -> None:
        self.rank, self.weights, self.random = rank, weights, random

    def __call__(self, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """sources, and the attribute value of each. Fewer sources than ranks: the most frequent ranks only."""
        ranks = len(self.weights)
        counts = shares(len(sources), self.weights[: min(ranks, len(sources))])
        values = [self._cycle(np.flatnonzero(self.rank == r), n) for r, n in enumerate(counts)]
        return sources, np.concatenate(values)

    def _cycle(self, values: np.ndarray, n: int) -> np.ndarray:
        """n values of one rank, each as often as the others (to within one)."""
        return np.resize(self.random.permutation(values), n)


def _assemble(index: Table, parts: list[tuple[Any, ...]], rank: np.ndarray, groups: np.ndarray) -> Table:
    import pandas as pd

    chosen = pd.concat(
        pd.DataFrame({"role": role, "split": split, "source": sources, "attribute": values})
        for role, split, sources, values in parts
    )
    table = chosen.merge(index, on=["source", "attribute"], how="left", validate="many_to_one")
    table["group"] = groups[table["label"].to_numpy()]
    table["attribute"] = rank[table["label"], table["attribute"]]
    return table
