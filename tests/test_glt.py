"""The split kind glt: exact counts, unbalanced classes and attributes, and no source in two roles."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltpipe.config.spec import Refused, parse
from ltpipe.data.sampling.class_sizes import exponential_sizes
from ltpipe.data.split import Split, draw
from ltpipe.data.splits.glt import draw_attribute_ranks
from ltpipe.storage.manifest import data_version, fingerprint

SMALL = {
    "largest": 12,
    "rho": 3,
    "val": 4,
    "test": 5,
    "shares": [3, 1],
    "groups": {"by": "rank", "many": 1, "medium": 1},
}


def parquet(table):
    return table.to_parquet(index=False)


def small_index(classes=3, sources=30, values=4):
    """Return an index with `sources` source images per class, each under `values` attribute values."""
    label, source, value = np.indices((classes, sources, values)).reshape(3, -1)
    names = [f"c{y}-{s:02d}" for y, s in zip(label, source, strict=True)]
    images = [f"{name}-{v}" for name, v in zip(names, value, strict=True)]
    rows = {"image": images, "source": names, "file": [str(row) for row in range(len(names))], "label": label}
    return pd.DataFrame(rows | {"class_name": [f"c{y}" for y in label], "attribute": value, "official": ""})


@pytest.fixture(scope="module")
def schemes(manifest, index):
    """The manifest with the colour scheme of each image."""
    return manifest.merge(index[["image", "attribute"]].rename(columns={"attribute": "scheme"}), on="image")


def test_each_class_of_each_split_has_exactly_the_stated_images(manifest, expect):
    for split, counts in expect.class_counts.items():
        labels = manifest.loc[manifest["split"] == split, "label"]
        assert np.bincount(labels, minlength=expect.classes).tolist() == counts, split
    assert set(manifest["split"]) == set(expect.class_counts)


def test_each_attribute_rank_of_each_split_has_exactly_the_stated_images(manifest, expect):
    assert set(expect.attribute_counts) == set(expect.class_counts)
    for split, counts in expect.attribute_counts.items():
        assert np.bincount(manifest.loc[manifest["split"] == split, "attribute"]).tolist() == counts, split


@pytest.mark.parametrize("split", ["train_glt", "train_cbl", "test_cbl", "test_gbl"])
def test_every_class_has_an_image_of_every_rank(manifest, split):
    rows = manifest[manifest["split"] == split]
    assert (rows.groupby("label")["attribute"].nunique() == 3).all()


def test_the_training_counts_are_exponential_sizes(manifest):
    counts = np.bincount(manifest.loc[manifest["split"] == "train_glt", "label"])
    assert counts.tolist() == exponential_sizes(100, 10, 10).tolist()


def test_the_most_frequent_scheme_differs_between_classes(schemes):
    train = schemes[schemes["split"] == "train_glt"]
    heads = [frozenset(rows.loc[rows["attribute"] == 0, "scheme"]) for _, rows in train.groupby("label")]
    assert len(set(heads)) > 3
    assert not frozenset.intersection(*heads)


def test_a_rank_of_a_class_has_the_same_two_schemes_in_every_split(schemes):
    meaning = schemes.groupby(["label", "scheme"])["attribute"].unique()
    assert meaning.map(len).eq(1).all()
    per_rank = meaning.map(lambda ranks: ranks[0]).groupby("label").value_counts()
    assert per_rank.eq(2).all()
    assert len(per_rank) == 10 * 3


def test_the_schemes_of_a_rank_are_equally_frequent(schemes):
    counts = schemes[schemes["split"] == "train_glt"].groupby(["label", "attribute"])["scheme"].value_counts()
    spread = counts.groupby(["label", "attribute"]).agg(lambda n: n.max() - n.min() if len(n) == 2 else n.max())
    assert spread.max() <= 1


def test_no_digit_is_in_two_roles(manifest):
    assert (manifest.groupby("source")["role"].nunique() == 1).all()


def test_a_split_belongs_to_one_role(manifest):
    assert manifest.groupby("split")["role"].unique().map(list).to_dict() == {
        "train_glt": ["train"],
        "train_cbl": ["train"],
        "val": ["val"],
        "test_cbl": ["test"],
        "test_gbl": ["test"],
    }


def test_test_gbl_is_every_test_digit_under_every_scheme(schemes):
    rows = schemes[schemes["split"] == "test_gbl"]
    assert not rows.duplicated(["source", "scheme"]).any()
    assert (rows.groupby("source")["scheme"].nunique() == 6).all()
    assert (rows.groupby("label")["source"].nunique() == 40).all()


def test_both_test_splits_have_the_same_digits(manifest):
    sources = manifest[manifest["role"] == "test"].groupby("split")["source"].agg(frozenset)
    assert sources["test_cbl"] == sources["test_gbl"]


def test_every_split_except_test_gbl_has_a_digit_at_most_once(manifest):
    rows = manifest[manifest["split"] != "test_gbl"]
    assert not rows.duplicated(["split", "source"]).any()


def test_each_row_of_the_manifest_agrees_with_the_index(manifest, index):
    from_index = manifest[["image"]].merge(index, on="image", how="left", validate="many_to_one")
    for column in ("source", "file", "label", "class_name"):
        assert (from_index[column] == manifest[column]).all(), column
    assert (manifest["id"] == manifest["split"] + "/" + manifest["image"]).all()
    assert manifest["id"].is_unique


def test_rows_number_the_images_without_a_gap(manifest):
    pairs = manifest[["row", "image"]].drop_duplicates()
    assert sorted(pairs["row"]) == list(range(manifest["image"].nunique()))


def test_groups_follow_the_training_sizes(manifest):
    groups = manifest.drop_duplicates("label").set_index("label")["group"].sort_index()
    assert groups.tolist() == ["many"] * 4 + ["medium"] * 4 + ["few"] * 2


def test_groups_by_count_follow_the_unbalanced_training_split():
    options = SMALL | {"groups": {"by": "count", "many": 10, "medium": 5}}
    manifest = draw(small_index(), Split(kind="glt", options=options))
    assert exponential_sizes(12, 3, 3).tolist() == [12, 6, 4]
    assert manifest.drop_duplicates("label").sort_values("label")["group"].tolist() == ["many", "medium", "few"]


def test_the_same_seed_gives_the_same_bytes(manifest, index, spec):
    assert parquet(draw(index, spec.split)) == parquet(manifest)


def test_the_order_of_the_index_does_not_matter(manifest, index, spec):
    assert parquet(draw(index.sample(frac=1, random_state=0), spec.split)) == parquet(manifest)


def test_another_seed_gives_another_manifest_of_the_same_counts(manifest, index, spec):
    other = draw(index, Split(kind="glt", options=spec.split.options | {"seed": 1}))
    assert fingerprint(other) != fingerprint(manifest)
    by = ["split", "label", "attribute"]
    assert other.groupby(by).size().equals(manifest.groupby(by).size())


def test_the_default_manifest_has_the_pinned_fingerprint(manifest):
    assert fingerprint(manifest) == "965e8754d8b1f870"


def test_the_accepted_baseline_was_measured_on_the_default_data(manifest, images, root):
    accepted = json.loads((root / "conf/accepted/digits_glt.json").read_text())
    assert accepted["data"] == data_version(manifest, images)


def test_a_data_version_depends_on_the_content_of_images(manifest, images):
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    assert data_version(manifest, changed) != data_version(manifest, images)
    assert data_version(manifest, images).startswith(fingerprint(manifest))


@given(st.integers(0, 2**32 - 1), st.integers(4, 20), st.floats(1, 2))
@settings(max_examples=15)
def test_any_seed_and_size_keeps_sources_apart_and_counts_exact(seed, largest, rho):
    options = SMALL | {"seed": seed, "largest": largest, "rho": rho}
    manifest = draw(small_index(), Split(kind="glt", options=options))
    train = manifest.loc[manifest["split"] == "train_glt", "label"]
    assert np.bincount(train).tolist() == exponential_sizes(largest, rho, 3).tolist()
    assert (manifest.groupby("source")["role"].nunique() == 1).all()
    assert manifest["id"].is_unique
    assert (manifest["split"] == "test_gbl").sum() == 3 * 5 * 4


def test_a_class_with_fewer_images_than_ranks_has_the_most_frequent_ranks(manifest):
    rows = manifest[(manifest["split"] == "val") & (manifest["label"] == 9)]
    assert sorted(rows["attribute"]) == [0, 1]


def test_ranks_have_equally_many_values_and_are_permuted_by_class():
    rank = draw_attribute_ranks(6, 3, 50, np.random.RandomState(0))
    assert (np.sort(rank, axis=1) == [0, 0, 1, 1, 2, 2]).all()
    assert len(np.unique(rank, axis=0)) > 20


def test_too_few_sources_are_refused_with_class_and_numbers():
    with pytest.raises(Refused, match="class 0 has 20 sources, 21 are needed"):
        draw(small_index(sources=20), Split(kind="glt", options=SMALL))


def test_exactly_enough_sources_are_enough():
    assert len(draw(small_index(sources=21), Split(kind="glt", options=SMALL)))


def test_values_that_cannot_fill_the_ranks_are_refused():
    with pytest.raises(Refused, match="4 attribute values cannot be merged evenly into 3 ranks"):
        draw(small_index(), Split(kind="glt", options=SMALL | {"shares": [3, 2, 1]}))


@pytest.mark.parametrize(("rho", "images"), [(100, 0), (8, 1)])
def test_an_imbalance_that_leaves_a_class_fewer_training_images_than_ranks_is_refused(rho, images):
    with pytest.raises(Refused, match=f"class 2 gets {images} training images for 2 ranks"):
        draw(small_index(), Split(kind="glt", options=SMALL | {"rho": rho}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shares": [1, 3]}, "shares must not increase with rank"),
        ({"shares": [3, 0]}, "greater than 0"),
        ({"shares": [1]}, "at least 2 items"),
        ({"rho": 0.5}, "greater than or equal to 1"),
        ({"largest": 0}, "greater than 0"),
        ({"sizes": 3}, "unknown key sizes; valid keys: largest, rho"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_drawn(change, message):
    with pytest.raises(Refused, match=message):
        parse(Split, {"kind": "glt", "options": SMALL | change}, "split")


def test_an_unknown_kind_of_split_is_refused_with_the_valid_names():
    with pytest.raises(Refused, match=r"no 'gltt' in ltpipe\.data\.splits; valid names: .*glt"):
        parse(Split, {"kind": "gltt"}, "split")
