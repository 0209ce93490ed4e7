"""ILSVRC 2012 and ImageNet-LT from miniature folders in the official layouts."""

import csv

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_lists import put

from ltpipe.config.spec import Refused
from ltpipe.data.checks.rules import files_exist, one_row
from ltpipe.data.fetch import COLUMNS, fetch
from ltpipe.data.pack import pack
from ltpipe.data.source import Source
from ltpipe.data.sources import imagenet2012

WNIDS = ["n01440764", "n01443537", "n02124075"]
VAL = ["n02124075", "n01440764", "n01443537", "n01440764"]  # of val images 1, 2, 3, 4
NAMES = [f"ILSVRC2012_val_{i:08d}" for i in (1, 2, 3, 4)]


@pytest.fixture(autouse=True)
def three_classes(monkeypatch):
    monkeypatch.setattr(imagenet2012, "CLASSES", 3)
    monkeypatch.delenv("LTPIPE_IMAGENET2012", raising=False)


def jpeg(path, level=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (90, 60), (level,) * 3).save(path, "JPEG")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "imagenet"
    for i, wnid in enumerate(WNIDS):
        for k in (12, 3):
            jpeg(folder / f"train/{wnid}/{wnid}_{k}.JPEG", 40 * i + k)
    return folder


def nested(root):
    for name, wnid in zip(NAMES, VAL, strict=True):
        jpeg(root / f"val/{wnid}/{name}.JPEG")


def flat(root):
    for name in NAMES:
        jpeg(root / f"val/{name}.JPEG")


def solution(root):
    flat(root)
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "PredictionString"])
        rows.writerows([name, f"{wnid} 1 2 3 4 {wnid} 5 6 7 8 "] for name, wnid in zip(NAMES, VAL, strict=True))


def devkit(root):
    """Write a development kit, whose class numbers are not those of the sorted WordNet ids."""
    from scipy.io import savemat

    flat(root)
    folder = root / "ILSVRC2012_devkit_t12/data"
    folder.mkdir(parents=True)
    order = ["n02124075", "n01440764", "n01443537"]
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([[(i, wnid, "a name")] for i, wnid in enumerate(order, start=1)], dtype=kind)
    savemat(folder / "meta.mat", {"synsets": synsets})
    numbers = [order.index(wnid) + 1 for wnid in VAL]
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{n}\n" for n in numbers))


def source(**options):
    return Source(name="imagenet2012", size=32, options=options)


@pytest.mark.parametrize("layout", [nested, solution, devkit])
def test_val_has_its_labels_in_every_layout(layout, root, tmp_path):
    layout(root)
    index = fetch(source(root=str(root)), tmp_path / "raw")[0]
    assert tuple(index.columns) == COLUMNS
    train, val = index[index["official"] == "train"], index[index["official"] == "val"]
    assert train["label"].tolist() == [0, 0, 1, 1, 2, 2]
    assert val["image"].tolist() == NAMES
    assert val["label"].tolist() == [WNIDS.index(wnid) for wnid in VAL]
    assert index["class_name"].tolist() == [WNIDS[label] for label in index["label"]]
    assert files_exist(index, str(tmp_path / "raw")) == []
    images = pack(index.assign(row=range(len(index))), source(), tmp_path / "raw")
    assert images.shape == (10, 32, 32, 3)
    assert np.abs(images[:2, 0, 0, 0].astype(int) - [12, 3]).max() <= 1


def test_classes_are_named_if_the_file_of_names_is_there(root, tmp_path):
    nested(root)
    (root / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    index = fetch(source(root=str(root)), tmp_path / "raw")[0]
    assert index["class_name"].iloc[[0, 2, 4]].tolist() == ["tench, Tinca tinca", "goldfish", "n02124075"]


def lists_of():
    """Return lists with one train and one val image per class, both from ILSVRC train; test is ILSVRC val."""
    train = "".join(f"train/{w}/{w}_12.JPEG {i}\n" for i, w in enumerate(WNIDS))
    val = "".join(f"train/{w}/{w}_3.JPEG {i}\n" for i, w in enumerate(WNIDS))
    test = "".join(f"val/{w}/{n}.JPEG {WNIDS.index(w)}\n" for n, w in zip(NAMES, VAL, strict=True))
    return {"train": train, "val": val, "test": test}


@pytest.mark.parametrize("layout", [nested, flat])
def test_imagenet_lt_follows_its_lists(layout, root, tmp_path, monkeypatch):
    layout(root)
    monkeypatch.setattr(imagenet2012, "LISTS", put(tmp_path / "raw", lists_of()))
    index = fetch(source(root=str(root), lists="imagenet_lt"), tmp_path / "raw")[0]
    assert index["official"].tolist() == ["train"] * 3 + ["val"] * 3 + ["test"] * 4
    assert index["label"].tolist() == [0, 1, 2, 0, 1, 2, 2, 0, 1, 0]
    assert index["image"].tolist()[-4:] == NAMES
    assert index["image"].is_unique
    assert files_exist(index, str(tmp_path / "raw")) == []


def test_a_listed_image_that_is_missing_is_named(root, tmp_path, monkeypatch):
    nested(root)
    (root / "train/n01443537/n01443537_3.JPEG").unlink()
    monkeypatch.setattr(imagenet2012, "LISTS", put(tmp_path / "raw", lists_of()))
    with pytest.raises(
        Refused, match=r"val\.txt: 1 of 3 listed files are not in .*: train/n01443537/n01443537_3\.JPEG"
    ):
        fetch(source(root=str(root), lists="imagenet_lt"), tmp_path / "raw")


def check_advice(message):
    """Assert that the message holds everything that a user must know."""
    for part in (
        "138 GB",
        "6.3 GB",
        "https://image-net.org/download",
        "registration",
        "non-commercial research",
        "conf/local",
        "LTPIPE_IMAGENET2012=/path",
        "-v /path:/app/data/01_raw/imagenet2012",
        "val/<wnid>/*.JPEG",
    ):
        assert part in message, part


def test_without_a_folder_one_message_says_what_to_get_and_where_to_put_it(tmp_path):
    with pytest.raises(Refused, match="source imagenet2012: no train and no val in") as caught:
        fetch(source(), tmp_path / "raw")
    assert caught.value.exit_code == 2
    check_advice(caught.value.message)


@pytest.mark.parametrize("spoil", ["no val", "a class less", "no labels", "a label less", "a stranger", "no image"])
def test_an_incomplete_folder_is_refused(spoil, root, tmp_path):
    expected = {
        "no val": "no val in",
        "a class less": "2 class folders in .*, not 3",
        "no labels": "val is flat, and neither",
        "a label less": "no label of 1 images in .*ILSVRC2012_val_00000004",
        "no image": r"no image \(\*\.JPEG\) in .*n02124075",
        "a stranger": "is of class n09999999, which train lacks",
    }[spoil]
    if spoil == "a class less":
        (root / "train/n01443537").rename(root / "moved")
        nested(root)
    elif spoil == "no labels":
        flat(root)
    elif spoil == "a label less":
        solution(root)
        table = root / "LOC_val_solution.csv"
        table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    elif spoil == "no image":
        nested(root)
        for path in (root / "train/n02124075").iterdir():
            path.rename(path.with_suffix(".tar"))
    elif spoil == "a stranger":
        nested(root)
        jpeg(root / "val/n09999999/ILSVRC2012_val_00000005.JPEG")
    with pytest.raises(Refused, match=expected):
        fetch(source(root=str(root)), tmp_path / "raw")


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "ImageId,PredictionString\nILSVRC2012_val_00000001,\n"])
def test_a_table_of_another_format_is_refused(content, root, tmp_path):
    solution(root)
    (root / "LOC_val_solution.csv").write_text(content)
    with pytest.raises(Refused, match=r"LOC_val_solution\.csv is not Kaggle's table|no label of 4 images"):
        fetch(source(root=str(root)), tmp_path / "raw")


@pytest.mark.parametrize("file", ["meta.mat", "ILSVRC2012_validation_ground_truth.txt"])
@pytest.mark.parametrize("content", [b"no matrix", b"9\n9\n9\n9\n"])
def test_a_development_kit_that_is_damaged_is_refused(file, content, root, tmp_path):
    devkit(root)
    (root / "ILSVRC2012_devkit_t12/data" / file).write_bytes(content)
    with pytest.raises(Refused, match="ILSVRC2012_devkit_t12/data is not the development kit"):
        fetch(source(root=str(root)), tmp_path / "raw")


@pytest.mark.parametrize("layout", [nested, solution, devkit])
def test_other_files_than_images_are_ignored(layout, root, tmp_path):
    layout(root)
    expected = fetch(source(root=str(root)), tmp_path / "raw")[0]
    (root / "val/.DS_Store").write_text("x")
    (root / "train/n01440764/Thumbs.db").write_text("x")
    assert fetch(source(root=str(root)), tmp_path / "raw")[0].equals(expected)


def test_links_are_followed_and_a_broken_link_fails_the_data_check(root, tmp_path):
    nested(root)
    moved = (root / "train/n01443537").rename(tmp_path / "another disk")
    (root / "train/n01443537").symlink_to(moved)
    (root / "train/n01440764/n01440764_9.JPEG").symlink_to(root / "gone.JPEG")
    index = fetch(source(root=str(root)), tmp_path / "raw")[0]
    assert index["label"].tolist()[:7] == [0, 0, 0, 1, 1, 2, 2]
    assert files_exist(index, str(tmp_path / "raw")) == ["train/n01440764/n01440764_9.JPEG"]


def test_a_val_image_in_two_classes_fails_the_data_check(root, tmp_path):
    nested(root)
    jpeg(root / f"val/n01443537/{NAMES[0]}.JPEG")
    index = fetch(source(root=str(root)), tmp_path / "raw")[0]
    rows = index.assign(row=pd.factorize(index["image"])[0])
    assert [NAMES[0] in line for line in one_row(rows)] == [True, True]


def test_a_truncated_image_is_named_when_it_is_packed(root, tmp_path):
    nested(root)
    index = fetch(source(root=str(root)), tmp_path / "raw")[0]
    victim = root / "train/n02124075/n02124075_3.JPEG"
    victim.write_bytes(victim.read_bytes()[:400])
    with pytest.raises(
        Refused, match=r"cannot decode .*train/n02124075/n02124075_3\.JPEG: .*\n.*unpack its archive again"
    ):
        pack(index.assign(row=range(10)), source(), tmp_path / "raw")


def test_a_folder_mounted_at_the_raw_folder_needs_no_option(root):
    nested(root)
    index = fetch(source(), root)[0]
    assert len(index) == 10
    assert not any(path.is_symlink() for path in root.rglob("*"))


def test_mounted_and_linked_folders_give_the_same_index(root, tmp_path, monkeypatch):
    nested(root)
    monkeypatch.setenv("LTPIPE_IMAGENET2012", str(root))
    linked = fetch(source(), tmp_path / "raw")[0]
    monkeypatch.delenv("LTPIPE_IMAGENET2012")
    assert linked.equals(fetch(source(), root)[0])
