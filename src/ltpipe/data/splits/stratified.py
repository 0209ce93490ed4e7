"""Train, val and test cut from images of which nobody made splits, class by class; or the splits that came with them.

    test, val    of each class `per_class` images, or a fraction, at least one
    train        the rest; with a `profile` a long tail of it

Where images have an attribute, each cut has the attributes of its class in proportion; the manifest's `attribute` is
the rank of the attribute inside its class, 0 the most frequent. official: the index's own train and test are taken as
they are, and its own val where it has one; else val is cut from train. Images without a split are then left out.
"""

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.sampling.class_sizes import Profile
from ltpipe.data.sampling.rows import EXAMPLES, Cut, Part, assemble, by_class, official
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table


class Config(Spec):
    """val, test: of each class. profile: of train, class 0 first. official: use the splits that the index states."""

    val: Cut = Cut(fraction=0.1)
    test: Cut = Cut(fraction=0.2)
    profile: Profile = Profile(shape="natural")
    official: bool = False
    groups: Groups
    seed: int = Field(0, ge=0, lt=2**32)


def spread(rows: np.ndarray, attribute: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """`rows` of one class shuffled so that every beginning has the attributes in proportion; attribute: of each row."""
    mixed = random.permutation(len(rows))
    values = attribute[mixed]
    place = np.empty(len(rows))
    for value in np.unique(values):
        same = np.flatnonzero(values == value)
        place[same] = (np.arange(len(same)) + 0.5) / len(same)
    return rows[mixed[np.argsort(place, kind="stable")]]


def ranks(labels: np.ndarray, attribute: np.ndarray) -> np.ndarray:
    """Rank of each image's attribute among those of its class, 0 the most frequent (ties by value); -1 stays -1."""
    found = np.full(len(labels), -1)
    for rows in by_class(labels, np.flatnonzero(attribute >= 0), int(labels.max()) + 1):
        order = np.argsort(-np.bincount(attribute[rows]), kind="stable") if len(rows) else rows
        found[rows] = np.argsort(order)[attribute[rows]]
    return found


def draw_manifest(index: Table, config: Config) -> Table:
    """The manifest of `index`, without the columns id and row. Raises Refused where a class has too few images."""
    labels, attribute = (index[name].to_numpy(dtype=np.int64) for name in ("label", "attribute"))
    if index["source"].duplicated().any():
        raise Refused("stratified: images share a source, which would be in two roles; use another split kind")
    random, classes = np.random.RandomState(config.seed), int(labels.max()) + 1

    def ordered(rows: np.ndarray) -> list[np.ndarray]:
        return [spread(own, attribute[own], random) for own in by_class(labels, rows, classes)]

    if config.official:
        train, test = ordered(official(index, "train")), official(index, "test")
    else:
        train, test = _cut(ordered(np.arange(len(index))), config.test, "test")
    if config.official and (index["official"] == "val").any():
        val = official(index, "val")
    else:
        train, val = _cut(train, config.val, "val")
    sizes = config.profile.of(np.array([len(own) for own in train]))
    kept = np.concatenate([own[:n] for own, n in zip(train, sizes, strict=True)])
    parts: list[Part] = [("train", "train", kept), ("val", "val", val), ("test", "test", test)]
    return assemble(index, parts, labels, config.groups.of(sizes), ranks(labels, attribute))


def _cut(own: list[np.ndarray], cut: Cut, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """What stays of each class, and the cut of all."""
    sizes = [max(cut.of(len(rows)), 1) for rows in own]
    short = [f"class {c} has {len(r)}" for c, (r, n) in enumerate(zip(own, sizes, strict=True)) if len(r) <= n]
    if short:
        raise Refused(f"stratified: too few images to cut {split} and leave some: {', '.join(short[:EXAMPLES])}")
    return [r[n:] for r, n in zip(own, sizes, strict=True)], np.concatenate(
        [r[:n] for r, n in zip(own, sizes, strict=True)]
    )
