"""Splits from official splits and list files, refused lists, and the official lists if LTPIPE_OFFICIAL_LISTS is set."""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ltpipe.config.spec import Refused, parse
from ltpipe.data.acquire.image_lists import parse_list
from ltpipe.data.split import Split, draw

GROUPS = {"by": "count", "many": 4, "medium": 2}
FOLDER = os.environ.get("LTPIPE_OFFICIAL_LISTS", "")
official = pytest.mark.skipif(not FOLDER, reason="LTPIPE_OFFICIAL_LISTS names no folder with the official lists (.gz)")


@pytest.fixture
def index():
    """12 classes whose numeric and text order differ; 5 training and 2 val images each."""
    rows = [(name, label, i) for name, n in (("train", 5), ("val", 2)) for label in range(12) for i in range(n)]
    files = [f"{name}/n{label:02d}/{name}_{label}_{i}.JPEG" for name, label, i in rows]
    images = [file.rsplit("/", 1)[1] for file in files]
    return pd.DataFrame(
        {
            "image": images,
            "source": images,
            "file": files,
            "label": [label for _, label, _ in rows],
            "class_name": [f"n{label:02d}" for _, label, _ in rows],
            "attribute": -1,
            "official": [name for name, _, _ in rows],
        }
    )


def write_list(index, rows, path, label=None):
    """Write a list file with these rows of the index, and return its path."""
    label = label or (lambda y: y)
    lines = [f"{index.loc[row, 'file']} {label(index.loc[row, 'label'])}" for row in rows]
    content = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def split(train, test, /, **options):
    return Split(
        kind="official_lists",
        options={"splits": {"train": {"role": "train", **train}, "test": {"role": "test", **test}}, "groups": GROUPS}
        | options,
    )


def test_official_splits_are_taken_as_they_are(index):
    manifest = draw(index, split({"official": "train"}, {"official": "val"}, cut={"per_class": 1}))
    assert manifest.groupby("split").size().to_dict() == {"test": 24, "train": 48, "val": 12}
    assert set(manifest.loc[manifest["split"] == "test", "image"]) == set(
        index.loc[index["official"] == "val", "image"]
    )


@pytest.mark.parametrize("name", ["train.txt", "train.txt.gz"])
def test_a_list_file_decides_images_and_labels(index, tmp_path, name):
    rows = [row for row in range(60) if row % 5 < 3]
    path = write_list(index, rows, tmp_path / name, label=lambda y: 11 - y)
    manifest = draw(index, split({"list": path, "lines": 36}, {"official": "val"}))
    assert set(manifest.loc[manifest["split"] == "train", "image"]) == set(index.loc[rows, "image"])
    names = manifest.drop_duplicates("label").set_index("label")["class_name"]
    assert names.loc[[0, 2, 10]].tolist() == ["n11", "n09", "n01"]
    assert set(manifest.loc[manifest["label"] == 0, "split"]) == {"train", "test"}


def test_a_val_list_may_name_official_training_images(index, tmp_path):
    train = write_list(index, [r for r in range(60) if r % 5 < 3], tmp_path / "a.txt")
    val = write_list(index, [r for r in range(60) if r % 5 == 3], tmp_path / "b.txt")
    splits = {
        "train": {"role": "train", "list": train},
        "val": {"role": "val", "list": val},
        "test": {"role": "test", "official": "val"},
    }
    manifest = draw(index, Split(kind="official_lists", options={"splits": splits, "groups": GROUPS}))
    folder = manifest["file"].str.split("/").str[0]
    assert set(zip(manifest["split"], folder, strict=True)) == {("train", "train"), ("val", "train"), ("test", "val")}
    assert not manifest["source"].duplicated().any()


@pytest.mark.parametrize(
    ("name", "role"), [("test_far", "train"), ("train", "test"), ("val", "train"), ("far", "test")]
)
def test_a_split_s_role_is_the_one_that_its_name_begins_with(name, role):
    listed = {"train": {"role": "train", "official": "train"}, name: {"role": role, "official": "val"}}
    with pytest.raises(Refused, match=rf"begins with its role, e\.g\. test or test_far, but {name} has {role}"):
        parse(Split, {"kind": "official_lists", "options": {"splits": listed, "groups": GROUPS}}, "split")


def test_match_by_name_ignores_different_folders(index, tmp_path):
    path = write_list(index.assign(file="elsewhere/" + index["image"]), range(60), tmp_path / "a.txt")
    assert len(draw(index, split({"list": path}, {"official": "val"}, match="name"))) == 84
    with pytest.raises(Refused, match="60 of 60 images are not in the index: elsewhere/train_0_0"):
        draw(index, split({"list": path}, {"official": "val"}))


def test_a_list_that_gives_two_labels_to_a_class_is_refused(index, tmp_path):
    path = write_list(index, range(60), tmp_path / "a.txt")
    text = Path(path).read_text().replace("train_3_1.JPEG 3", "train_3_1.JPEG 4")
    Path(path).write_text(text)
    with pytest.raises(Refused, match="class 3 of the index has more than one label"):
        draw(index, split({"list": path}, {"official": "val"}))


def test_lists_that_number_the_classes_differently_are_refused(index, tmp_path):
    train = write_list(index, range(60), tmp_path / "a.txt")
    test = write_list(index, range(60, 84), tmp_path / "b.txt", label=lambda y: 11 - y)
    with pytest.raises(Refused, match="has more than one label"):
        draw(index, split({"list": train}, {"list": test}))


def test_a_wrong_number_of_lines_is_refused(index):
    with pytest.raises(Refused, match="split train: 60 images, not 61"):
        draw(index, split({"official": "train", "lines": 61}, {"official": "val"}))


def test_a_missing_list_is_refused(index, tmp_path):
    with pytest.raises(Refused, match=r"cannot read the list .*none\.txt"):
        draw(index, split({"list": str(tmp_path / "none.txt")}, {"official": "val"}))


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        ({}, {}, "state official or list"),
        ({"official": "train", "list": "a.txt"}, {}, "not both"),
        ({"official": "train"}, {"train": "big"}, "no split big; splits: train, test"),
        ({"official": "train"}, {"cut": {"split": "x", "per_class": 1}}, "no split x"),
    ],
)
def test_an_incomplete_block_is_refused(train, options, message):
    with pytest.raises(ValueError, match=message):
        split(train, {"official": "val"}, **options)


def read_official(name, classes):
    path = Path(FOLDER) / f"{name}.gz"
    if not path.exists():
        pytest.skip(f"no {path.name} in LTPIPE_OFFICIAL_LISTS")
    return parse_list(gzip.decompress(path.read_bytes()).decode(), name, classes)


@official
@pytest.mark.parametrize(
    ("name", "classes", "lines", "each", "folder"),
    [
        ("ImageNet_LT_val.txt", 1000, 20_000, 20, "train"),  # val is of ILSVRC train
        ("ImageNet_LT_test.txt", 1000, 50_000, 50, "val"),
        ("iNaturalist18_val.txt", 8142, 24_426, 3, "train_val2018"),
    ],
)
def test_an_official_list_has_its_lines_and_classes(name, classes, lines, each, folder):
    entries = read_official(name, classes)
    assert len(entries) == lines
    assert (np.bincount([entry.label for entry in entries]) == each).all()
    assert {entry.file.split("/")[0] for entry in entries} == {folder}


@official
def test_imagenet_lt_numbers_the_sorted_wordnet_ids():
    entries = read_official("ImageNet_LT_val.txt", 1000)
    pairs = sorted({(entry.label, entry.file.split("/")[1]) for entry in entries})
    assert [name for _, name in pairs] == sorted(name for _, name in pairs)
    assert len(pairs) == 1000


@official
def test_imagenet_lt_val_and_test_share_no_image():
    names = [{e.file.rsplit("/", 1)[1] for e in read_official(f"ImageNet_LT_{s}.txt", 1000)} for s in ("val", "test")]
    assert not names[0] & names[1]


@official
def test_places_lt_has_its_sizes_and_groups(root):
    from ltpipe.benchmark import load

    counts = np.bincount([entry.label for entry in read_official("Places_LT_train.txt", 365)])
    assert (counts.sum(), counts.max(), counts.min()) == (62_500, 4_980, 5)
    assert ((counts > 100).sum(), (counts < 20).sum()) == (131, 71)
    assert counts.tolist() == load(root / "conf/base")["places_lt"].expect.class_counts["train"]
