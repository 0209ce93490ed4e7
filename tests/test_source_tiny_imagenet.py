"""Tiny ImageNet: a miniature in the official layout; the real dataset, if LTPIPE_TINY_IMAGENET names its folder."""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltpipe.config.spec import Refused
from ltpipe.data.checks.rules import files_exist
from ltpipe.data.fetch import COLUMNS, fetch
from ltpipe.data.pack import pack
from ltpipe.data.source import Source
from ltpipe.data.sources import tiny_imagenet

# not sorted, as in the official wnids.txt
WNIDS = ["n02124075", "n01443537", "n04067472"]
VAL = {"val_0.JPEG": "n04067472", "val_1.JPEG": "n01443537", "val_2.JPEG": "n02124075", "val_10.JPEG": "n01443537"}
REAL = os.environ.get("LTPIPE_TINY_IMAGENET", "")


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch):
    monkeypatch.delenv("LTPIPE_TINY_IMAGENET", raising=False)


def jpeg(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if level % 2 else "L", (64, 64), (level,) * 3 if level % 2 else level).save(path)


@pytest.fixture
def root(tmp_path):
    """Write the unpacked folder: train image k of class i has grey level 40 i + k, val image k 200 + k."""
    folder = tmp_path / "user" / "tiny-imagenet-200"
    for i, wnid in enumerate(sorted(WNIDS)):
        for k in range(11):
            jpeg(folder / f"train/{wnid}/images/{wnid}_{k}.JPEG", 40 * i + k)
        (folder / f"train/{wnid}/{wnid}_boxes.txt").write_text("a box\n")
    for file in VAL:
        jpeg(folder / "val/images" / file, 200 + int(file[4:-5]))
    lines = [f"{file}\t{wnid}\t0\t32\t44\t62\n" for file, wnid in VAL.items()]
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (folder / "words.txt").write_text("n00001740\tentity\nn01443537\tgoldfish, Carassius\nn02124075\tcat\n")
    (folder / "test/images").mkdir(parents=True)
    return folder


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def source(**options):
    return Source(name="tiny_imagenet", size=32, options=options)


def test_classes_are_numbered_by_sorted_wnid_and_val_by_its_annotations(root, raw):
    index = fetch(source(root=str(root)), raw)[0]
    assert tuple(index.columns) == COLUMNS
    train, val = index[index["official"] == "train"], index[index["official"] == "val"]
    assert train["label"].tolist() == [0] * 11 + [1] * 11 + [2] * 11
    assert train["image"].tolist()[8:12] == ["n01443537_8", "n01443537_9", "n01443537_10", "n02124075_0"]
    assert dict(zip(val["image"], val["label"], strict=True)) == {"val_0": 2, "val_1": 0, "val_2": 1, "val_10": 0}
    assert train["class_name"].iloc[[0, 11, 22]].tolist() == ["goldfish, Carassius", "cat", "n04067472"]
    assert index["image"].is_unique


def test_images_are_read_through_a_link_in_the_raw_folder(root, raw):
    index = fetch(source(root=str(root)), raw)[0]
    assert {path.name for path in raw.iterdir()} - {"NOTICE"} == {"tiny-imagenet-200"}
    assert (raw / "tiny-imagenet-200").is_symlink()
    assert files_exist(index, str(raw)) == []
    assert not index["file"].str.contains(str(root)).any()


def test_pixels_are_those_of_the_file_at_the_requested_size(root, raw):
    index = fetch(source(root=str(root)), raw)[0]
    images = pack(index.assign(row=range(len(index))), source(), raw)
    assert images.shape == (37, 32, 32, 3)
    levels = [40 * i + k for i in range(3) for k in range(11)] + [200, 201, 202, 210]
    assert np.abs(images.astype(int) - np.array(levels)[:, None, None, None]).max() <= 1


def test_the_environment_may_name_the_folder(root, raw, monkeypatch):
    monkeypatch.setenv("LTPIPE_TINY_IMAGENET", str(root))
    assert len(fetch(source(), raw)[0]) == 37


def test_the_official_archive_is_unpacked_beside_itself(root, raw, monkeypatch):
    raw.mkdir()
    path = raw / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent))
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(tiny_imagenet, "REMOTE", tiny_imagenet.REMOTE._replace(checksum=f"md5:{md5}", size=None))
    shutil.rmtree(root)
    index = fetch(source(), raw)[0]
    assert len(index) == 37
    assert files_exist(index, str(raw)) == []
    path.unlink()
    assert fetch(source(), raw)[0].equals(index)


def test_another_folder_replaces_the_link_to_the_first(root, raw, tmp_path):
    fetch(source(root=str(root)), raw)
    other = shutil.copytree(root, tmp_path / "other")
    fetch(source(root=str(other)), raw)
    assert (raw / "tiny-imagenet-200").resolve() == other


def test_a_folder_in_the_place_of_the_link_is_not_touched(root, raw):
    (raw / "tiny-imagenet-200").mkdir(parents=True)
    (raw / "tiny-imagenet-200/mine").write_text("mine")
    with pytest.raises(Refused, match=r"exists and is not a link; a link to .* has to take its place"):
        fetch(source(root=str(root)), raw)
    assert (raw / "tiny-imagenet-200/mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_a_missing_file_of_the_folder_is_named(name, root, raw):
    (root / name).unlink()
    with pytest.raises(Refused, match=f"no {name} in {root}"):
        fetch(source(root=str(root)), raw)


def test_a_class_without_images_is_refused(root, raw):
    shutil.rmtree(root / "train/n02124075")
    with pytest.raises(Refused, match="class n02124075 has no image"):
        fetch(source(root=str(root)), raw)


ANNOTATIONS = "val/val_annotations.txt"


def spoil(root, name, change):
    path = root / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", ANNOTATIONS])
@pytest.mark.parametrize(
    "change", [lambda b: b.replace(b"\n", b"\r\n"), lambda b: b"\xef\xbb\xbf" + b, lambda b: b + b"\n \n"]
)
def test_line_ends_a_byte_order_mark_and_empty_lines_do_not_matter(name, change, root, raw):
    expected = fetch(source(root=str(root)), raw)[0]
    spoil(root, name, change)
    assert fetch(source(root=str(root)), raw)[0].equals(expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val_0.JPEG", "line 5: 'val_0.JPEG' is not a file and a class, with a tab between them"),
        ("val_3.JPEG n01443537 0 32", "line 5: 'val_3.JPEG n01443537 0 32' is not a file and a class"),
        ("val_3.JPEG\t\t0\t32", "line 5: 'val_3.JPEG' is not a file and a class"),
        (
            "val_0.JPEG\tn99999999\t0\t0\t1\t1",
            "line 5: val_0.JPEG is of class n99999999, which wnids.txt does not list",
        ),
        ("val_0.JPEG\t7\t0\t0\t1\t1", "line 5: val_0.JPEG is of class 7, which wnids.txt does not list"),
        ("val_3.JPEG\tn01443537\t0\t0\t1\t1", "line 5: no image val_3.JPEG in val/images"),
        ("../x.JPEG\tn01443537\t0\t0\t1\t1", "line 5: no image ../x.JPEG in val/images"),
        ("val_0.JPEG\tn01443537\t0\t0\t1\t1", "line 5: val_0.JPEG is listed twice"),
    ],
)
def test_a_bad_line_of_the_annotations_is_named(line, message, root, raw):
    spoil(root, ANNOTATIONS, lambda content: content + line.encode() + b"\n")
    with pytest.raises(Refused, match=r"val_annotations\.txt, 1 problems:") as caught:
        fetch(source(root=str(root)), raw)
    assert message in caught.value.message


def test_a_val_image_without_a_line_has_no_label_and_is_refused(root, raw):
    spoil(root, ANNOTATIONS, lambda content: content.partition(b"\n")[2])
    with pytest.raises(Refused, match=r"no line of image val_0\.JPEG"):
        fetch(source(root=str(root)), raw)


def test_only_the_first_bad_lines_are_shown(root, raw):
    spoil(root, ANNOTATIONS, lambda _: b"bad\n" * 30)
    with pytest.raises(Refused, match="30 problems") as caught:
        fetch(source(root=str(root)), raw)
    assert len(caught.value.message.splitlines()) == 11


def test_a_class_that_is_listed_twice_is_refused(root, raw):
    spoil(root, "wnids.txt", lambda content: content + b"n01443537\n")
    with pytest.raises(Refused, match=r"wnids\.txt lists classes twice: n01443537$"):
        fetch(source(root=str(root)), raw)


def test_a_class_of_train_that_is_not_listed_is_refused(root, raw):
    spoil(root, "wnids.txt", lambda content: content.replace(b"n02124075\n", b""))
    with pytest.raises(Refused, match=r"wnids\.txt does not list classes of train: n02124075$"):
        fetch(source(root=str(root)), raw)


def test_other_files_than_images_are_ignored(root, raw):
    expected = fetch(source(root=str(root)), raw)[0]
    (root / "train/n02124075/images/.DS_Store").write_text("x")
    (root / "val/images/Thumbs.db").write_text("x")
    assert fetch(source(root=str(root)), raw)[0].equals(expected)


def test_a_truncated_image_is_named_when_it_is_packed(root, raw):
    index = fetch(source(root=str(root)), raw)[0]
    for file in ("val_1.JPEG", "val_10.JPEG"):
        spoil(root, f"val/images/{file}", lambda content: content[: len(content) // 2])
    with pytest.raises(Refused, match=r"cannot decode 2 of 37 files:\n  .*val_1\.JPEG: .*[Tt]runcated") as caught:
        pack(index.assign(row=range(len(index))), source(), raw)
    assert "val_10.JPEG" in caught.value.message
    assert "unpack its archive again" in caught.value.message


@pytest.mark.skipif(not REAL, reason="LTPIPE_TINY_IMAGENET does not name the unpacked tiny-imagenet-200")
def test_the_real_dataset(tmp_path):
    index = fetch(source(root=REAL), tmp_path / "raw")[0]
    sizes = index.groupby(["official", "label"]).size()
    assert len(index) == 110_000
    assert sizes["train"].tolist() == [500] * 200
    assert sizes["val"].tolist() == [50] * 200
    assert index["class_name"].nunique() == 200
    assert index.loc[index["label"] == 0, "class_name"].iloc[0] == "goldfish, Carassius auratus"
    first = (Path(REAL) / "val/val_annotations.txt").read_text().split("\t")
    assert first[:2] == ["val_0.JPEG", "n03444034"]
    wnids = sorted((Path(REAL) / "wnids.txt").read_text().split())
    assert index.loc[index["image"] == "val_0", "label"].item() == wnids.index("n03444034")
    images = pack(index.iloc[::50].assign(row=range(2200)), source(), tmp_path / "raw")
    assert images.shape == (2200, 32, 32, 3)
    assert 100 < images.mean() < 125
