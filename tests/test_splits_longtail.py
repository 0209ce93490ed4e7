"""Long tails of official splits: they have the images of LDAM's generator, are nested over rho, val is never test."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from ltpipe.config.spec import Refused, parse
from ltpipe.data.sampling.class_sizes import (
    Profile,
    decode_runs,
    encode_runs,
    exponential_sizes,
    pareto_sizes,
    step_sizes,
)
from ltpipe.data.split import Split, draw

BY_COUNT = {"by": "count", "many": 100, "medium": 20}
# sum of the numbers of the 10,847 images that RandomState(0) chooses if class c has the images from 500 c + 100 on
PINNED = 111_762_182

REST = {"cut": "rest", "per_class": 20}


def made_index(train, test, classes, seed=3):
    """An index whose classes are mixed in file order; train, test: images of each class."""
    random = np.random.RandomState(seed)
    parts = []
    for name, images in (("train", train), ("test", test)):
        labels = random.permutation(np.repeat(np.arange(classes), images))
        image = [f"{name}{i:05d}" for i in range(len(labels))]
        parts.append(pd.DataFrame({"image": image, "source": image, "label": labels, "official": name}))
    index = pd.concat(parts, ignore_index=True)
    return index.assign(
        file=[str(i) for i in range(len(index))],
        class_name=[f"class {label}" for label in index["label"]],
        attribute=-1,
    )


@pytest.fixture(scope="module")
def cifar100():
    return made_index(500, 100, 100)


def split(rho, classes=100, **changes):
    profile = {"shape": "exponential", "largest": 500 if classes == 100 else 5000, "rho": rho}
    return Split(kind="longtail", options={"profile": profile, "val": REST, "groups": BY_COUNT, **changes})


def images(manifest, name="train"):
    return set(manifest.loc[manifest["split"] == name, "image"])


def generator(index, counts):
    """Return the images that LDAM's generator chooses: one seed, classes in order, shuffle in place, truncate."""
    np.random.seed(0)
    targets = index.loc[index["official"] == "train", "label"].to_numpy()
    chosen = []
    for label, count in enumerate(counts):
        rows = np.where(targets == label)[0]
        np.random.shuffle(rows)
        chosen += rows[:count].tolist()
    return {f"train{row:05d}" for row in chosen}


@pytest.mark.parametrize("rho", [10, 50, 100])
def test_cifar100_lt_has_the_images_of_the_generator(cifar100, rho):
    assert images(draw(cifar100, split(rho))) == generator(cifar100, exponential_sizes(500, rho, 100))


def test_cifar10_lt_has_the_images_of_the_generator():
    index = made_index(5000, 1000, 10)
    manifest = draw(index, split(100, 10))
    assert images(manifest) == generator(index, exponential_sizes(5000, 100, 10))
    assert manifest["split"].value_counts()["train"] == 12_406


def test_the_choice_is_pinned():
    index = made_index(500, 1, 100).sort_values(["official", "label"], kind="stable", ignore_index=True)
    index["image"] = [f"{i:05d}" for i in range(len(index))]
    chosen = draw(index.assign(source=index["image"]), split(100))
    last = sorted(chosen.loc[(chosen["split"] == "train") & (chosen["label"] == 99), "image"].astype(int))
    np.random.seed(0)
    for label in range(100):
        rows = np.arange(500) + 500 * label + 100
        np.random.shuffle(rows)
    assert last == sorted(rows[:5])
    assert int(chosen.loc[chosen["split"] == "train", "image"].astype(int).sum()) == PINNED


@pytest.mark.parametrize(("rho", "total"), [(10, 19_573), (20, 15_907), (50, 12_608), (100, 10_847), (200, 9_502)])
def test_train_has_the_published_total(cifar100, rho, total):
    assert len(images(draw(cifar100, split(rho)))) == total


def test_subsets_are_nested_over_rho(cifar100):
    sets = [images(draw(cifar100, split(rho))) for rho in (200, 100, 50, 10)]
    assert all(small < large for small, large in pairwise(sets))


def test_val_has_left_out_images_and_test_is_the_complete_official_split(cifar100):
    manifest = draw(cifar100, split(100))
    official = dict(zip(cifar100["image"], cifar100["official"], strict=True))
    assert {official[image] for image in images(manifest, "val")} == {"train"}
    assert not images(manifest, "val") & images(manifest)
    assert images(manifest, "test") == {image for image, name in official.items() if name == "test"}
    counts = np.bincount(manifest.loc[manifest["split"] == "val", "label"], minlength=100)
    assert counts.tolist() == [min(20, 500 - n) for n in exponential_sizes(500, 100, 100)]


def test_val_from_the_rest_is_the_same_at_every_rho_if_enough_images_are_left_out(cifar100):
    val = {}
    for rho in (100, 200):
        manifest = draw(cifar100, split(rho))
        val[rho] = set(manifest.loc[(manifest["split"] == "val") & (manifest["label"] > 5), "image"])
    assert val[100] == val[200]


def test_val_cut_from_train_makes_train_smaller_and_leaves_each_class_an_image(cifar100):
    manifest = draw(cifar100, split(100, val={"cut": "train", "per_class": 5}))
    assert images(manifest) | images(manifest, "val") == images(draw(cifar100, split(100)))
    assert np.bincount(manifest.loc[manifest["split"] == "train", "label"]).min() == 1


def test_val_as_a_fraction_of_train_is_floored(cifar100):
    manifest = draw(cifar100, split(100, val={"cut": "train", "fraction": 0.1}))
    counts = np.bincount(manifest.loc[manifest["split"] == "val", "label"], minlength=100)
    assert counts.tolist() == [n // 10 for n in exponential_sizes(500, 100, 100)]


def test_val_may_be_an_official_split():
    index = made_index(50, 10, 5)
    index.loc[(index["official"] == "test") & (index.index % 2 == 0), "official"] = "val"
    options = {"profile": {"shape": "natural"}, "val": {"cut": "official"}, "groups": BY_COUNT}
    manifest = draw(index, Split(kind="longtail", options=options))
    assert len(images(manifest, "val")) == (index["official"] == "val").sum()
    assert len(images(manifest)) == 250


def test_classes_stay_in_numeric_order(cifar100):
    manifest = draw(cifar100, split(100))
    sizes = manifest[manifest["split"] == "train"].groupby("label").size()
    assert sizes.loc[[2, 10, 11]].tolist() == [455, 314, 299] == exponential_sizes(500, 100, 100)[[2, 10, 11]].tolist()
    pairs = manifest.drop_duplicates("label")
    assert (pairs["class_name"] == [f"class {label}" for label in pairs["label"]]).all()


def test_classes_by_size_begin_with_the_largest():
    index = made_index(40, 5, 4)
    drop = index[(index["official"] == "train") & (index["label"] == 0)].index[:10]
    index = index.drop(drop).reset_index(drop=True)
    options = {"profile": {"shape": "natural"}, "val": {"cut": "train", "per_class": 2}, "groups": BY_COUNT}
    manifest = draw(index, Split(kind="longtail", options={**options, "classes": "size"}))
    names = manifest.drop_duplicates("label").set_index("label")["class_name"]
    assert names.loc[[0, 1, 2, 3]].tolist() == ["class 1", "class 2", "class 3", "class 0"]
    assert manifest[manifest["split"] == "train"].groupby("label").size().tolist() == [38, 38, 38, 28]


def test_step_sizes_are_those_of_ldam():
    assert step_sizes(500, 100, 100).tolist() == [500] * 50 + [5] * 50
    assert step_sizes(500, 10, 5).tolist() == [500, 500, 50, 50, 50]


def test_pareto_sizes_begin_at_the_largest_end_at_the_smallest_and_never_rise():
    sizes = pareto_sizes(1280, 256, 1000, 6)
    assert (sizes[0], sizes[-1]) == (1280, 5)
    assert (np.diff(sizes) <= 0).all()
    assert sizes[:400].sum() > sizes[400:].sum()


@pytest.mark.parametrize("text", ["500x3 497 5x2", "7", "1x1 2", ""])
def test_run_lengths_survive_a_round_trip(text):
    sizes = decode_runs(text)
    assert decode_runs(encode_runs(sizes)) == sizes


def test_run_lengths_are_read_as_size_times_repeats():
    assert decode_runs("500x3 497") == [500, 500, 500, 497]
    assert encode_runs([500, 500, 500, 497]) == "500x3 497"


@pytest.mark.parametrize("text", ["500*3", "-5", "5 x 3", "a", "5x3x2"])
def test_a_wrong_run_length_is_named(text):
    with pytest.raises(ValueError, match=r"not a size, nor size x repeats as in 500x3: "):
        decode_runs(text)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"shape": "exponential", "rho": 10}, "shape exponential needs largest, rho; given: rho"),
        ({"shape": "natural", "largest": 5}, "shape natural needs nothing more; given: largest"),
        ({"shape": "pareto", "largest": 5, "rho": 2}, "needs largest, power, rho"),
        ({"shape": "list"}, "needs sizes; given: nothing"),
        ({"shape": "poisson"}, "'exponential', 'step', 'pareto', 'list' or 'natural'"),
    ],
)
def test_an_incomplete_profile_is_refused(profile, message):
    with pytest.raises(Refused, match=message):
        parse(Profile, profile, "profile")


def test_a_class_that_is_too_small_is_refused_by_name(cifar100):
    with pytest.raises(Refused, match="1 classes are too small: class 0 has 500 images, 501 are wanted"):
        draw(cifar100, split(100, profile={"shape": "exponential", "largest": 501, "rho": 100}))


def test_a_list_of_the_wrong_length_is_refused(cifar100):
    with pytest.raises(Refused, match="99 sizes for 100 classes"):
        draw(cifar100, split(100, profile={"shape": "list", "sizes": "5x99"}))


def test_a_missing_official_split_is_refused_with_the_existing_ones(cifar100):
    with pytest.raises(Refused, match="no image of the official split 'val'; it has: 'test', 'train'"):
        draw(cifar100, split(100, test="val"))


@pytest.mark.parametrize(
    ("val", "message"),
    [
        ({"cut": "rest"}, "state per_class or fraction"),
        ({"cut": "official", "per_class": 5}, "takes the whole official split"),
        ({"cut": "rest", "per_class": 5, "fraction": 0.1}, "not both"),
    ],
)
def test_an_incomplete_val_is_refused(val, message):
    with pytest.raises(Refused, match=message):
        parse(Split, split(100).model_dump() | {"options": {**split(100).options, "val": val}}, "split")


def test_a_natural_profile_refuses_val_from_the_rest():
    with pytest.raises(ValueError, match=r"val\.cut must be train or official"):
        split(100, profile={"shape": "natural"})
