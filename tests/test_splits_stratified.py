"""Splits of images that have no splits: every class and attribute in proportion, and no image in two splits."""

import numpy as np
import pandas as pd
import pytest

from ltpipe.config.spec import Refused
from ltpipe.data.split import Split, draw
from ltpipe.storage.manifest import with_attribute_names

GROUPS = {"by": "count", "many": 100, "medium": 20}


def make_index(sizes=(200, 100, 40, 10), attributes=True, seed=0):
    random = np.random.RandomState(seed)
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    image = [f"{i:04d}.png" for i in range(len(labels))]
    return pd.DataFrame(
        {
            "image": image,
            "source": image,
            "file": image,
            "label": labels,
            "class_name": [f"c{label}" for label in labels],
            "attribute": random.choice([3, 0, 1], len(labels), p=[0.6, 0.3, 0.1]) if attributes else -1,
            "official": "",
        }
    )


@pytest.fixture(scope="module")
def index():
    return make_index()


def split(**options):
    return Split(kind="stratified", options={"groups": GROUPS, **options})


def table(manifest):
    return manifest.groupby(["split", "label"]).size().unstack(fill_value=0)


def test_each_class_is_cut_in_proportion(index):
    sizes = table(draw(index, split(test={"fraction": 0.2}, val={"fraction": 0.1})))
    assert sizes.loc["test"].tolist() == [40, 20, 8, 2]
    assert sizes.loc["val"].tolist() == [16, 8, 3, 1]
    assert sizes.sum().tolist() == [200, 100, 40, 10]


def test_a_fraction_of_a_tiny_class_is_one_image():
    sizes = table(draw(make_index((50, 3)), split()))
    assert sizes[1].to_dict() == {"test": 1, "train": 1, "val": 1}


@pytest.mark.parametrize("attributes", [False, True])
def test_a_picture_keeps_its_split_when_others_come(index, attributes):
    """A shuffle of the class would leave a fifth of the test pictures where they were."""
    grown = make_index((220, 110, 44, 11), attributes)
    first = grown.sample(frac=0.9, random_state=0).sort_index().reset_index(drop=True)
    before, after = (draw(table, split()).set_index("image")["split"] for table in (first, grown))
    tested = before[before == "test"].index
    assert (after[tested] == "test").mean() > 0.85
    assert (after[before.index] == before).mean() > 0.85


def test_the_order_of_the_index_does_not_matter():
    table = make_index(attributes=False)
    shuffled = draw(table.sample(frac=1, random_state=1).reset_index(drop=True), split())
    assert dict(zip(shuffled["image"], shuffled["split"], strict=True)) == dict(
        zip(*(draw(table, split())[name] for name in ("image", "split")), strict=True)
    )


def test_attributes_are_cut_in_proportion(index):
    manifest = draw(index, split(test={"fraction": 0.2}))
    largest = manifest[manifest["label"] == 0]
    share = largest.groupby("split")["attribute"].value_counts(normalize=True).unstack(fill_value=0)
    assert (share.loc["test"] - share.loc["train"]).abs().max() < 0.05


def test_the_attribute_becomes_its_rank_in_the_class(index):
    manifest = draw(index, split())
    for _, rows in manifest.groupby("label"):
        sizes = rows["attribute"].value_counts().sort_index()
        assert sizes.index.tolist() == list(range(len(sizes)))
        assert (np.diff(sizes) <= 0).all()


def test_without_attributes_every_rank_is_minus_one():
    assert set(draw(make_index(attributes=False), split())["attribute"]) == {-1}


def test_a_long_tail_may_be_imposed_on_train():
    profile = {"shape": "exponential", "largest": 50, "rho": 10}
    sizes = table(draw(make_index((100, 100, 100)), split(profile=profile)))
    assert sizes.loc["train"].tolist() == [50, 15, 5]
    assert sizes.loc["test"].tolist() == [20, 20, 20]


def test_the_splits_that_came_with_the_images_are_kept(index):
    divided = index.assign(official=np.where(np.arange(len(index)) % 4 == 0, "test", "train"))
    manifest = draw(divided, split(official=True))
    assert set(manifest.loc[manifest["split"] == "test", "image"]) == set(
        divided.loc[divided["official"] == "test", "image"]
    )
    assert (manifest["split"] == "val").any()


def test_images_with_splits_keep_them_unless_the_file_says_otherwise(index):
    divided = index.assign(official=np.where(np.arange(len(index)) % 4 == 0, "test", "train"))
    pd.testing.assert_frame_equal(draw(divided, split()), draw(divided, split(official=True)))
    pd.testing.assert_frame_equal(draw(divided, split(official=False)), draw(index, split()))


def test_an_official_val_is_kept_too(index):
    divided = index.assign(official=np.array(["train", "val", "test"])[np.arange(len(index)) % 3])
    manifest = draw(divided, split(official=True))
    assert {name: set(rows["image"]) for name, rows in manifest.groupby("split")} == {
        name: set(rows["image"]) for name, rows in divided.groupby("official")
    }


def test_no_image_is_in_two_splits_and_another_seed_is_another_cut(index):
    first, second = (draw(index, split(seed=seed)) for seed in (0, 1))
    assert not first["image"].duplicated().any()
    assert set(first.loc[first["split"] == "test", "image"]) != set(second.loc[second["split"] == "test", "image"])
    pd.testing.assert_frame_equal(draw(index, split(seed=0)), first)


def test_a_class_that_is_too_small_is_refused():
    with pytest.raises(Refused, match="too few images to cut val and leave some: class 1 has 1"):
        draw(make_index((50, 2)), split())


def test_images_that_share_a_source_are_refused(index):
    with pytest.raises(Refused, match="share a source"):
        draw(index.assign(source="one"), split())


@pytest.mark.parametrize("options", [{}, {"official": True}])
def test_official_without_test_images_is_refused_with_the_remedy(options, index):
    divided = index.assign(official=np.where(np.arange(len(index)) % 4 == 0, "val", "train"))
    message = "no image of the official split 'test'; it has: 'train', 'val'; state official: false"
    with pytest.raises(Refused, match=message):
        draw(divided, split(**options))
    assert set(draw(divided, split(official=False))["split"]) == {"train", "val", "test"}


def test_images_of_no_split_are_left_out_only_if_the_file_says_so(index):
    divided = index.assign(official=np.array(["train", "test", ""])[np.arange(len(index)) % 3])
    message = r"234 images have a split, and 116 have none, e\.g\. 0002\.png: state official: true .leave .* or false"
    with pytest.raises(Refused, match=message):
        draw(divided, split())
    assert len(draw(divided, split(official=True))) == 234
    assert len(draw(divided, split(official=False))) == 350


def test_names_of_attributes_are_kept_by_class_and_rank():
    index = make_index()
    names = ["day", "night", "unused", "dusk"]
    options = {"test": {"fraction": 0.2}, "val": {"fraction": 0.1}, "groups": GROUPS}
    assert draw(index, Split(kind="stratified", options=options)).attrs == {}
    index.attrs["named_attributes"] = names
    manifest = draw(index, Split(kind="stratified", options=options))
    assert manifest.attrs["attributes"][0] == ["dusk", "day", "night"]
    named = with_attribute_names(manifest, manifest)
    expected = index.set_index("image")["attribute"].map(lambda value: names[value])
    assert named.set_index("image")["attribute_name"].to_dict() == expected[manifest["image"]].to_dict()
