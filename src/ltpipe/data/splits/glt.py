"""The GLT construction (Tang et al., ECCV 2022) for data with a known attribute: classes and attributes unbalanced.

The values of the attribute are merged into ranks, equally many values per rank. Which values a rank gets is permuted
by class, so that the most frequent attribute differs between classes. The sources of each class are divided into
train, val and test before any image is chosen; an image is a source under one value of the attribute.

    train_glt   exponential class sizes, attribute ranks in `shares`
    train_cbl   equal class sizes, the same shares
    val         as train_glt, but smaller: validation images are of the training distribution
    test_cbl    equal class sizes, the same shares
    test_gbl    every test source under every value of the attribute

Differences from the authors' ImageNet-GLT: attributes are known, not k-means clusters; Test-CBL and Test-GBL have the
same sources (theirs share none), because otherwise each would have only half of a small number of test sources.
"""

from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.sampling.class_sizes import exponential_sizes, proportional_counts
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table

Share = Annotated[float, Field(gt=0)]


class Config(Spec):
    """The options of this split kind. Sizes are sources of one class; only test_gbl has several images of a source."""

    largest: int = Field(gt=0, description="train_glt images of the largest class")
    rho: float = Field(ge=1, description="imbalance ratio of train_glt and val: largest / smallest class")
    val: int = Field(gt=0, description="val images of the largest class")
    test: int = Field(gt=0, description="test sources of each class")
    shares: tuple[Share, ...] = Field(
        min_length=2, description="relative frequency of each attribute rank, most frequent first"
    )
    groups: Groups = Field(description="rule that gives each class its group, by its images in train_glt")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of all draws")

    @model_validator(mode="after")
    def _check_shares(self) -> "Config":
        if list(self.shares) != sorted(self.shares, reverse=True):
            raise ValueError(f"shares must not increase with rank: {list(self.shares)}")
        return self


def draw_attribute_ranks(values: int, ranks: int, classes: int, random: np.random.RandomState) -> np.ndarray:
    """Return the rank of each attribute value in each class, classes x values.

    Each rank has equally many values, and each class its own permutation. `values` must be a multiple of `ranks`.
    """
    ladder = np.arange(values) * ranks // values
    order = np.stack([random.permutation(values) for _ in range(classes)])
    return np.take_along_axis(np.tile(ladder, (classes, 1)), np.argsort(order, axis=1), axis=1)


def draw_manifest(index: Table, config: Config) -> Table:
    """Return the manifest of `index`, without the columns id and row.

    Raises Refused if a class has too few sources or training images, or if the ranks cannot have equally many values.
    """
    values, classes, ranks = index["attribute"].nunique(), index["label"].nunique(), len(config.shares)
    if values % ranks:
        raise Refused(f"glt split: {values} attribute values cannot be merged evenly into {ranks} ranks (shares)")
    random = np.random.RandomState(config.seed)
    rank = draw_attribute_ranks(values, ranks, classes, random)
    train = exponential_sizes(config.largest, config.rho, classes)
    if train.min() < ranks:
        label = int(train.argmin())
        raise Refused(f"glt split: class {label} gets {train[label]} training images for {ranks} ranks; lower rho")
    val = np.maximum(exponential_sizes(config.val, config.rho, classes), 1)
    # train_cbl has as many images as train_glt, rounded down to equal classes
    equal = np.full(classes, max(int(train.sum()) // classes, ranks))
    parts = []
    for label in range(classes):
        sources = random.permutation(np.sort(index.loc[index["label"] == label, "source"].unique()))
        need = config.test + val[label] + max(train[label], equal[label])
        if need > len(sources):
            raise Refused(
                f"glt split: class {label} has {len(sources)} sources, {need} are needed (largest, val, test)"
            )
        # train_glt and train_cbl both begin at the same source, so they share sources
        test_sources, val_sources, rest = np.split(sources, [config.test, config.test + val[label]])
        draw_values = _ValueDraw(rank[label], config.shares, random)
        parts += [
            ("train", "train_glt", *draw_values(rest[: train[label]])),
            ("train", "train_cbl", *draw_values(rest[: equal[label]])),
            ("val", "val", *draw_values(val_sources)),
            ("test", "test_cbl", *draw_values(test_sources)),
            ("test", "test_gbl", test_sources.repeat(values), np.tile(np.arange(values), len(test_sources))),
        ]
    return _look_up_images(index, parts, rank, config.groups.of_classes(train))


class _ValueDraw:
    """Draws an attribute value for each source of one class, with the ranks in exact shares."""

    def __init__(self, rank: np.ndarray, weights: tuple[float, ...], random: np.random.RandomState) -> None:
        """rank: of each attribute value in this class; weights: share of each rank."""
        self.rank, self.weights, self.random = rank, weights, random

    def __call__(self, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sources and their attribute values; with fewer sources than ranks, the last ranks get none."""
        ranks = len(self.weights)
        counts = proportional_counts(len(sources), self.weights[: min(ranks, len(sources))])
        values = [self._repeat_evenly(np.flatnonzero(self.rank == r), n) for r, n in enumerate(counts)]
        return sources, np.concatenate(values)

    def _repeat_evenly(self, values: np.ndarray, n: int) -> np.ndarray:
        """Return n values of one rank, in which each value occurs equally often, to within one."""
        return np.resize(self.random.permutation(values), n)


def _look_up_images(index: Table, parts: list[tuple[Any, ...]], rank: np.ndarray, groups: np.ndarray) -> Table:
    """Return the manifest: for each chosen source and value, the index's image of them.

    parts: role, split, sources, attribute values. `attribute` becomes the rank of the value in its class.
    """
    import pandas as pd

    chosen = pd.concat(
        pd.DataFrame({"role": role, "split": split, "source": sources, "attribute": values})
        for role, split, sources, values in parts
    )
    table = chosen.merge(index, on=["source", "attribute"], how="left", validate="many_to_one")
    absent = table[table["image"].isna()]
    if len(absent):
        source, value = absent.iloc[0][["source", "attribute"]]
        raise Refused(
            f"glt split: {len(absent)} images are not in the index, e.g. source {source} under attribute {value}: "
            "every source needs one image under each value of the attribute"
        )
    table["group"] = groups[table["label"].to_numpy()]
    table["attribute"] = rank[table["label"], table["attribute"]]
    return table
