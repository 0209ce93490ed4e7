"""Train, val and test cut class by class from images that have no splits; or the splits that came with the images.

    test, val    `per_class` images of each class, or a fraction, but at least one; test is cut first
    train        the rest; with a `profile`, a long tail of the rest

If images have an attribute, every cut has the attributes of a class in proportion. The manifest's `attribute` is the
rank of the attribute inside its class, 0 the most frequent. If the index has names of attributes, the manifest keeps
them.

The order in which a class is cut is that of a digest of seed and source: a picture keeps its place when others come or
go. So nearly all pictures stay in their split when a dataset grows, where a shuffle would draw all of them anew, and
train on what was tested before. With attributes, whose proportions move, some percent change their split.

Where the images come with splits (folders train and test, a CSV's column split, an official dataset), these are taken:
train and test unchanged, and so is val if there is one; else val is cut from train. `official: false` draws from all
images instead. If only some images have a split, `official` must be stated: true leaves the others out.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.sampling.class_sizes import Profile
from ltpipe.data.sampling.rows import EXAMPLES, Cut, Part, build_manifest, official_rows, rows_by_class
from ltpipe.storage.manifest import Groups
from ltpipe.storage.table import Table


class Config(Spec):
    """The options of this split kind."""

    val: Cut = Field(
        Cut(fraction=0.1), description="validation images of each class, from what test leaves; default: fraction 0.1"
    )
    test: Cut = Field(Cut(fraction=0.2), description="test images of each class; default: fraction 0.2")
    profile: Profile = Field(
        Profile(shape="natural"), description="class sizes of train; default: natural, all that test and val leave"
    )
    official: bool | None = Field(
        None,
        description="true: take the images' own splits train and test, and val if there is one; false: draw from all "
        "images; null: true if the images have splits; must be stated if only some have",
    )
    groups: Groups = Field(description="rule that gives each class its group, by its images in train")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the order in which a class is cut")


def places_of(sources: Sequence[str], seed: int) -> np.ndarray:
    """Return a pseudo-random place of each source, N, uint64, on which no other source has an influence."""
    key = seed.to_bytes(4, "little")
    digests = (blake2b(s.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest() for s in sources)
    return np.frombuffer(b"".join(digests), "<u8")


def interleave_attributes(rows: np.ndarray, attribute: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the rows of one class in the order of their places, but every beginning has the attributes in proportion.

    attribute, places: of each of `rows`, N.
    """
    mixed = np.argsort(places, kind="stable")
    values = attribute[mixed]
    # The i-th of the k images of an attribute gets the place (i + 0.5) / k. So each attribute is evenly spread over
    # 0..1, and the first fraction f of the sorted places holds about the fraction f of each attribute.
    place = np.empty(len(rows))
    for value in np.unique(values):
        same = np.flatnonzero(values == value)
        place[same] = (np.arange(len(same)) + 0.5) / len(same)
    return rows[mixed[np.argsort(place, kind="stable")]]


def rank_attributes(labels: np.ndarray, attribute: np.ndarray) -> np.ndarray:
    """Return the rank of each image's attribute in its class, N: 0 the most frequent, ties by value; -1 stays -1."""
    ranks = np.full(len(labels), -1)
    for rows in rows_by_class(labels, np.flatnonzero(attribute >= 0), int(labels.max()) + 1):
        # order: attribute values, most frequent first; its argsort maps a value to its rank
        order = np.argsort(-np.bincount(attribute[rows]), kind="stable") if len(rows) else rows
        ranks[rows] = np.argsort(order)[attribute[rows]]
    return ranks


def draw_manifest(index: Table, config: Config) -> Table:
    """Return the manifest of `index`, without the columns id and row.

    Raises Refused if a class has too few images, or if two images have the same source.
    """
    labels, attribute = (index[name].to_numpy(dtype=np.int64) for name in ("label", "attribute"))
    if index["source"].duplicated().any():
        raise Refused("stratified: images share a source, which would be in two roles; use another split kind")
    places, classes = places_of(index["source"].tolist(), config.seed), int(labels.max()) + 1
    official = _takes_official(index, config.official)

    def order_by_class(rows: np.ndarray) -> list[np.ndarray]:
        class_rows = rows_by_class(labels, rows, classes)
        return [interleave_attributes(rows, attribute[rows], places[rows]) for rows in class_rows]

    if official:
        train, test = order_by_class(_official(index, "train")), _official(index, "test")
    else:
        train, test = _cut_classes(order_by_class(np.arange(len(index))), config.test, "test")
    if official and (index["official"] == "val").any():
        val = official_rows(index, "val")
    else:
        train, val = _cut_classes(train, config.val, "val")
    sizes = config.profile.class_sizes(np.array([len(rows) for rows in train]))
    kept = np.concatenate([rows[:n] for rows, n in zip(train, sizes, strict=True)])
    parts: list[Part] = [("train", "train", kept), ("val", "val", val), ("test", "test", test)]
    groups, ranks = config.groups.of_classes(sizes), rank_attributes(labels, attribute)
    manifest = build_manifest(index, parts, labels, groups, ranks)
    if names := index.attrs.get("named_attributes"):
        manifest.attrs["attributes"] = name_ranks(labels, attribute, ranks, names)
    return manifest


def name_ranks(labels: np.ndarray, attribute: np.ndarray, ranks: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    """Return for each class the names of its attributes, by rank.

    labels, attribute, ranks: of each image, N. names: of each attribute.
    """
    found: list[dict[int, str]] = [{} for _ in range(int(labels.max()) + 1)]
    for label, value, place in zip(labels.tolist(), attribute.tolist(), ranks.tolist(), strict=True):
        if value >= 0:
            found[label][place] = names[value]
    return [[of_class[place] for place in sorted(of_class)] for of_class in found]


def _takes_official(index: Table, stated: bool | None) -> bool:
    """Tell whether the images' own splits are taken. Raises Refused if only some have one and nothing is stated."""
    if stated is not None:
        return stated
    has_split = (index["official"] != "").to_numpy(dtype=bool)
    if has_split.any() and not has_split.all():
        raise Refused(
            f"stratified: {has_split.sum()} images have a split, and {(~has_split).sum()} have none, e.g. "
            f"{index['image'].to_numpy()[~has_split][0]}: state official: true (leave them out) or false (draw anew)"
        )
    return bool(has_split.all())


def _official(index: Table, name: str) -> np.ndarray:
    """Return the rows of an official split. Raises Refused, with the remedy, if it has no image."""
    try:
        return official_rows(index, name)
    except Refused as error:
        raise Refused(f"stratified: {error.message}; state official: false (draw all splits anew)") from None


def _cut_classes(class_rows: list[np.ndarray], cut: Cut, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Cut the beginning of each class's rows; return what is left of each class, and the rows of the cut.

    Raises Refused if a class would have nothing left.
    """
    sizes = [max(cut.count(len(rows)), 1) for rows in class_rows]
    short = [f"class {c} has {len(r)}" for c, (r, n) in enumerate(zip(class_rows, sizes, strict=True)) if len(r) <= n]
    if short:
        raise Refused(f"stratified: too few images to cut {split} and leave some: {', '.join(short[:EXAMPLES])}")
    left = [rows[n:] for rows, n in zip(class_rows, sizes, strict=True)]
    return left, np.concatenate([rows[:n] for rows, n in zip(class_rows, sizes, strict=True)])
