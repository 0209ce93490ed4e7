"""A user's own images: class folders and CSV files, and the messages about wrong ones."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ltpipe.benchmark import load
from ltpipe.config.spec import Refused
from ltpipe.data.checks.rules import files_exist
from ltpipe.data.checks.validate import validate
from ltpipe.data.fetch import COLUMNS, fetch
from ltpipe.data.pack import pack
from ltpipe.data.source import Source
from ltpipe.data.split import Split, admit, draw
from ltpipe.storage.datasets import Parquet
from ltpipe.storage.manifest import class_names, fingerprint


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch):
    monkeypatch.delenv("LTPIPE_IMAGE_FOLDER", raising=False)


def image(path, level=50):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 12), (level,) * 3).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    """Write classes whose order as numbers (1, 2, 10) differs from that as text."""
    for name, count in {"10": 2, "2": 1, "1": 3}.items():
        for k in range(count):
            image(tmp_path / "photos" / name / f"img {k}.png", 10 * int(name) + k)
    return tmp_path / "photos"


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def index_of(root, raw, **options):
    return fetch(Source(name="image_folder", size=8, options={"root": str(root)} | options), raw)[0]


def table(root, text, name="images.csv"):
    path = root / name
    path.write_bytes(text.encode())
    return path


def test_numeric_class_names_are_numbered_by_number(root, raw):
    index = index_of(root, raw)
    assert tuple(index.columns) == COLUMNS
    names = index.drop_duplicates("label").sort_values("label")["class_name"].tolist()
    assert names == ["1", "2", "10"]
    assert index["label"].value_counts().sort_index().tolist() == [3, 1, 2]
    assert (index["attribute"] == -1).all()
    assert (index["official"] == "").all()
    assert index["image"].is_unique


def test_other_class_names_are_numbered_as_text(root, raw):
    image(root / "10b" / "x.png")
    names = index_of(root, raw).drop_duplicates("label").sort_values("label")["class_name"].tolist()
    assert names == ["1", "10", "10b", "2"]


def test_the_images_are_found_and_read_below_the_raw_folder(root, raw):
    index = index_of(root, raw)
    assert files_exist(index, str(raw)) == []
    images = pack(index.assign(row=range(len(index))), Source(name="image_folder", size=8), raw)
    expected = [10 * int(name) + int(path[-5]) for name, path in zip(index["class_name"], index["image"], strict=True)]
    assert (images == np.array(expected)[:, None, None, None]).all()


def test_names_that_only_look_like_numbers_are_text(root, raw):
    image(root / "--1" / "x.png")
    names = index_of(root, raw).drop_duplicates("label").sort_values("label")["class_name"].tolist()
    assert names == ["--1", "1", "10", "2"]


def test_folders_within_a_class_count_and_hidden_files_do_not(root, raw):
    image(root / "2" / "more" / "deep.png")
    (root / "2" / ".DS_Store").write_text("x")
    (root / ".git").mkdir()
    (root / "readme.txt").write_text("beside the class folders")
    assert index_of(root, raw)["label"].value_counts().sort_index().tolist() == [3, 2, 2]


def test_the_environment_may_name_the_folder(root, raw, monkeypatch):
    monkeypatch.setenv("LTPIPE_IMAGE_FOLDER", str(root))
    assert len(index_of("", raw)) == 6


def test_the_index_is_the_same_wherever_the_images_lie(root, raw, tmp_path):
    here = index_of(root, raw)
    moved = tmp_path / "elsewhere" / "of another name"
    shutil.copytree(root, moved)
    there = index_of(moved, tmp_path / "raw of another machine")
    pd.testing.assert_frame_equal(here, there)
    assert not any(part in file for file in here["file"] for part in (str(tmp_path), root.name))


def test_other_images_under_the_same_names_have_another_place(root, raw, tmp_path):
    here = index_of(root, raw)
    other = tmp_path / "other"
    shutil.copytree(root, other)
    Image.new("RGB", (90, 90), (1, 2, 3)).save(other / "2" / "img 0.png")
    there = index_of(other, raw)
    assert not set(here["file"]) & set(there["file"])
    assert files_exist(here, str(raw)) == files_exist(there, str(raw)) == []


def test_the_fingerprint_of_a_manifest_does_not_see_the_place(root, raw):
    groups = {"by": "count", "many": 3, "medium": 2}
    split = Split(kind="stratified", options={"val": {"per_class": 1}, "test": {"per_class": 1}, "groups": groups})
    for k in range(4):
        image(root / "2" / f"more {k}.png", k)
        image(root / "10" / f"more {k}.png", 200 + k)
    index = index_of(root, raw)
    manifest = draw(index, split)
    other = draw(index.assign(file="elsewhere/" + index["image"]), split)
    assert (manifest["file"] != other["file"]).all()
    assert fingerprint(manifest) == fingerprint(other)


def test_folders_of_one_name_do_not_collide(root, raw, tmp_path):
    image(tmp_path / "other" / "photos" / "x" / "a.png", 99)
    first, second = index_of(root, raw), index_of(tmp_path / "other" / "photos", raw)
    assert files_exist(first, str(raw)) == files_exist(second, str(raw)) == []
    assert len([path for path in raw.iterdir() if path.is_symlink()]) == 2


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_csv_says_label_attribute_and_split(root, raw, ending, start):
    lines = [
        "split,path,label,attribute",
        'train,"10/img 0.png",cat,sunny',
        "val,10/img 1.png,ant,",
        "test,1/img 0.png,cat,dark",
        ",1/img 1.png,ant,sunny",
    ]
    path = table(root, start + ending.join(lines) + ending)
    index = index_of(path, raw)
    assert index["class_name"].tolist() == ["cat", "ant", "cat", "ant"]
    assert index["label"].tolist() == [1, 0, 1, 0]
    assert index["attribute"].tolist() == [1, -1, 0, 1]
    assert index.attrs["named_attributes"] == ["dark", "sunny"]
    assert index["official"].tolist() == ["train", "val", "test", ""]
    assert index["image"].tolist() == ["10/img 0.png", "10/img 1.png", "1/img 0.png", "1/img 1.png"]
    assert files_exist(index, str(raw)) == []


def test_labels_and_attributes_of_a_csv_are_numbered_by_number_too(root, raw):
    path = table(root, "path,label,attribute\n10/img 0.png,10,100\n10/img 1.png,9,20\n1/img 0.png,100,3\n")
    index = index_of(path, raw)
    assert index["label"].tolist() == [1, 0, 2]
    assert index["attribute"].tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,label\na,b\n",
            "columns of .* are file, label; valid: path, label, and optionally attribute and split",
        ),
        ("path\na\n", "columns of .* are path; valid"),
        ("path,label,colour\na,b,c\n", "columns of .* are path, label, colour"),
        ("path,label,label\na,b,c\n", "columns of"),
        ("", "columns of"),
        ("path,label\n", "lists no image"),
        ("path,label\n10/img 0.png,a\n10/img 1.png\n", "line 3 does not have 2 fields"),
        ("path,label\n10/img, 0.png,a\n", "line 2 does not have 2 fields .a path with a comma needs quotes"),
        ("path,label\n10/img 0.png,\n", "line 2: no label"),
        ("path,label\n,cat\n", "line 2: no path"),
        ("path,label\n10/img 0.png,a\ngone.png,a\n", "line 3: no file gone.png in"),
        ("path,label\n../photos/10/img 0.png,a\n", "line 2: .* is not a path below"),
        ("path,label\n/etc/passwd,a\n", "line 2: /etc/passwd is not a path below"),
        ("path,label,split\n10/img 0.png,a,training\n", "split 'training'; valid: train, val, test or empty"),
        ("path,label\n10/img 0.png,a\n10/img 0.png,b\n", "line 3 repeats line 2"),
        ('path,label\n"10/img 0.png,a\n', "not a CSV file in UTF-8"),
    ],
)
def test_a_bad_csv_is_refused_with_the_line(text, message, root, raw):
    with pytest.raises(Refused, match=message):
        index_of(table(root, text), raw)
    assert not raw.exists()


def test_a_csv_in_another_encoding_is_refused(root, raw):
    path = root / "latin.csv"
    path.write_bytes("path,label\n10/img 0.png,\xe9t\xe9\n".encode("latin1"))
    with pytest.raises(Refused, match=r"latin\.csv is not a CSV file in UTF-8"):
        index_of(path, raw)


def test_only_the_first_bad_lines_are_shown(root, raw):
    path = table(root, "path,label\n" + "".join(f"gone{i}.png,a\n" for i in range(25)))
    with pytest.raises(Refused, match=r"(?s)gone9\.png.*and 15 more") as caught:
        index_of(path, raw)
    assert "gone10.png" not in caught.value.message


@pytest.fixture
def spoilt(root):
    (root / "1" / "notes.txt").write_text("not an image")
    (root / "10" / "zero.png").write_bytes(b"")
    return root


def test_files_that_are_no_images_are_refused_by_default(spoilt, raw):
    with pytest.raises(Refused, match=r"2 of 8 files in .* are not readable images") as caught:
        index_of(spoilt, raw)
    for part in ("1/notes.txt: not an image that Pillow knows", "10/zero.png: the file is empty", "broken: exclude"):
        assert part in caught.value.message
    assert not raw.exists()


def test_files_that_are_no_images_can_be_left_out_and_are_reported(spoilt, raw, caplog):
    index = index_of(spoilt, raw, broken="exclude")
    assert len(index) == 6
    assert "2 of 8 files" in caplog.text
    assert "1/notes.txt" in caplog.text


def test_a_class_without_readable_image_is_refused(spoilt, raw):
    (spoilt / "empty").mkdir()
    with pytest.raises(Refused, match="no file in class folder empty"):
        index_of(spoilt, raw, broken="exclude")
    (spoilt / "empty" / "x.txt").write_text("x")
    with pytest.raises(Refused, match="no readable image of class empty"):
        index_of(spoilt, raw, broken="exclude")


def test_no_more_than_ten_files_are_named(root, raw):
    for i in range(15):
        (root / "1" / f"bad{i:02d}.png").write_text("x")
    with pytest.raises(Refused, match="15 of 21 files") as caught:
        index_of(root, raw)
    assert caught.value.message.count("not an image") == 10


def test_an_empty_folder_is_refused(tmp_path, raw):
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match=r"no class folder in .*; images belong into .*/empty/<class>/"):
        index_of(tmp_path / "empty", raw)


def split_folders(root, *folders):
    """Make root/<split>/<class>/<image> for the classes cat and dog, with pixels that all differ."""
    for number, folder in enumerate(folders):
        for label, name in enumerate(("cat", "dog")):
            image(root / folder / name / "x.png", 10 * number + label)
    return root


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folders_of_splits_are_read_as_torchvisions_users_have_them(tmp_path, raw, val):
    index = index_of(split_folders(tmp_path / "data", "test", "train", val), raw)
    assert index["image"].tolist() == sorted(f"{s}/{c}/x.png" for s in ("test", "train", val) for c in ("cat", "dog"))
    assert index["official"].tolist() == ["test", "test", "train", "train", "val", "val"]
    assert index["label"].tolist() == [0, 1] * 3
    assert index["class_name"].tolist() == ["cat", "dog"] * 3


def test_a_class_that_only_some_splits_have_is_refused(tmp_path, raw):
    root = split_folders(tmp_path / "data", "train", "test")
    image(root / "test" / "Cat" / "y.png")
    with pytest.raises(Refused, match=r"no class folder train/Cat in .*another split has that class"):
        index_of(root, raw)


def test_a_split_without_class_folders_is_refused(tmp_path, raw):
    root = split_folders(tmp_path / "data", "train")
    image(root / "test" / "y.png")
    with pytest.raises(Refused, match=r"no class folder in .*/test; images belong into .*/test/<class>/"):
        index_of(root, raw)


def test_two_folders_of_one_split_are_refused(tmp_path, raw):
    with pytest.raises(Refused, match=r"of train, val, valid in .*, two are one split"):
        index_of(split_folders(tmp_path / "data", "train", "val", "valid"), raw)


@pytest.mark.parametrize(
    ("folders", "odd"),
    [
        (("train", "test", "extra"), "extra"),
        (("Train", "test"), "Train"),
        (("TRAIN", "Test", "valid"), "TRAIN, Test"),
    ],
)
def test_folders_of_splits_beside_others_are_refused(folders, odd, tmp_path, raw):
    with pytest.raises(Refused, match=f"hold class folders as splits do, but these are no names of splits: {odd};"):
        index_of(split_folders(tmp_path / "data", *folders), raw)
    assert not raw.exists()


def test_a_folder_of_images_beside_splits_is_refused(tmp_path, raw):
    image(split_folders(tmp_path / "data", "train", "test") / "unsorted" / "x.png", 99)
    with pytest.raises(Refused, match=r"in .*/data, test, train hold .* no names of splits: unsorted;"):
        index_of(tmp_path / "data", raw)


@pytest.mark.parametrize("name", ["train", "Test"])
def test_a_class_may_be_called_as_a_split_beside_other_classes(name, root, raw):
    image(root / name / "x.png")
    assert set(index_of(root, raw)["class_name"]) == {"1", "2", "10", name}


def copy_picture(root, first, *others):
    for other in others:
        shutil.copy(root / first, root / other)


def test_equal_files_in_two_splits_are_refused(tmp_path, raw):
    root = split_folders(tmp_path / "data", "train", "val", "test")
    copy_picture(root, "train/cat/x.png", "test/cat/again.png")
    message = (
        r"(?s)test/cat/again\.png and train/cat/x\.png have the same content and are in two splits, test and train"
    )
    with pytest.raises(Refused, match=message):
        index_of(root, raw)


def test_of_equal_files_in_two_splits_that_of_the_test_split_is_kept(tmp_path, raw):
    root = split_folders(tmp_path / "data", "train", "val", "test")
    copy_picture(root, "train/cat/x.png", "test/cat/again.png", "train/cat/more.png")
    copy_picture(root, "train/dog/x.png", "val/dog/again.png")
    index = index_of(root, raw, duplicates="exclude")
    kept = {"test/cat/again.png", "val/dog/again.png"}
    assert kept <= set(index["image"]) and len(index) == 6 + 3 - 3
    assert index.attrs["equal"] == {
        "train/cat/more.png": "test/cat/again.png",
        "train/cat/x.png": "test/cat/again.png",
        "train/dog/x.png": "val/dog/again.png",
    }


def test_equal_files_of_one_class_could_be_drawn_into_train_and_test(ten, raw, shipped):
    """They passed every expectation: the split knows the names of files, not their content."""
    copy_picture(ten, "5/00.png", *(f"5/copy{k}.png" for k in range(20)))
    with pytest.raises(Refused, match=r"(?s)5/00\.png and 5/copy0\.png have the same content.*duplicates: exclude"):
        through(shipped, ten, raw)
    index = index_of(ten, raw, duplicates="exclude")
    assert len(index) == 200 and not index["image"].str.contains("copy").any()


@pytest.mark.parametrize("duplicates", ["refuse", "exclude"])
def test_equal_files_with_two_labels_are_always_refused(duplicates, ten, raw):
    copy_picture(ten, "5/00.png", "6/wrong.png")
    message = r"5/00\.png and 6/wrong\.png have the same content, but the classes 5 and 6\n.*correct or remove one"
    with pytest.raises(Refused, match=message):
        index_of(ten, raw, duplicates=duplicates)


def test_excluded_files_are_said_and_kept_with_the_index(ten, raw, caplog, tmp_path):
    copy_picture(ten, "5/00.png", "5/copy.png")
    (ten / "5" / "empty.png").write_bytes(b"")
    index = index_of(ten, raw, duplicates="exclude", broken="exclude")
    assert "1 files in" in caplog.text and "5/00.png and 5/copy.png have the same content" in caplog.text
    Parquet(str(tmp_path / "index.parquet")).save(index)
    kept = Parquet(str(tmp_path / "index.parquet")).load().attrs
    assert kept["left_out"] == {"5/empty.png": "the file is empty", "5/copy.png": "same content as 5/00.png"}


def test_no_more_than_ten_equal_files_are_named(root, raw):
    copy_picture(root, "2/img 0.png", *(f"2/copy{k}.png" for k in range(12)))
    lines = ["path,label,split", "2/img 0.png,a,train", *(f"2/copy{k}.png,a,test" for k in range(12))]
    message = r"2/copy0\.png and 2/img 0\.png have the same content(?s:.*)and 2 more"
    with pytest.raises(Refused, match=message) as caught:
        index_of(table(root, "\n".join(lines)), raw)
    assert caught.value.message.count("same content") == 10
    assert len(index_of(table(root, "\n".join(lines)), raw, duplicates="exclude")) == 1


def test_a_parquet_file_says_what_a_csv_says(root, raw):
    rows = {"path": ["10/img 0.png", "1/img 1.png"], "label": [7, 12], "attribute": ["sunny", None]}
    pd.DataFrame(rows).to_parquet(root / "list.parquet")
    path = table(root, "path,label,attribute\n10/img 0.png,7,sunny\n1/img 1.png,12,\n")
    pd.testing.assert_frame_equal(index_of(root / "list.parquet", raw), index_of(path, raw))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"file": ["a"], "label": ["b"]}, r"columns of .*list\.parquet are file, label; valid: path, label"),
        ({"path": ["1/img 0.png", "gone.png"], "label": ["a", "b"]}, r"row 2: no file gone\.png"),
        ({"path": ["1/img 0.png"], "label": [None]}, "row 1: no label"),
    ],
)
def test_a_bad_parquet_file_is_refused(rows, message, root, raw):
    pd.DataFrame(rows).to_parquet(root / "list.parquet")
    with pytest.raises(Refused, match=message):
        index_of(root / "list.parquet", raw)


def test_a_file_that_is_no_parquet_is_refused(root, raw):
    (root / "list.parquet").write_text("path,label\n")
    with pytest.raises(Refused, match=r"list\.parquet is not a parquet file"):
        index_of(root / "list.parquet", raw)


def test_classes_may_be_called_train_and_test(tmp_path, raw):
    image(tmp_path / "data" / "train" / "x.png")
    image(tmp_path / "data" / "test" / "x.png", 60)
    index = index_of(tmp_path / "data", raw)
    assert index["class_name"].tolist() == ["test", "train"]
    assert (index["official"] == "").all()


def test_links_to_a_file_and_to_a_folder_elsewhere_are_followed(root, raw, tmp_path):
    image(tmp_path / "far" / "deep" / "a.png", 70)
    (root / "2" / "linked").symlink_to(tmp_path / "far")
    (root / "10" / "one.png").symlink_to(image(tmp_path / "single.png", 80))
    (root / "3").symlink_to(tmp_path / "far2")
    image(tmp_path / "far2" / "b.png", 90)
    index = index_of(root, raw)
    assert {"2/linked/deep/a.png", "10/one.png", "3/b.png"} <= set(index["image"])
    assert index.loc[index["image"] == "3/b.png", "class_name"].item() == "3"
    assert files_exist(index, str(raw)) == []
    rows = index[index["image"].isin(["2/linked/deep/a.png", "10/one.png"])].sort_values("image").assign(row=[0, 1])
    images = pack(rows, Source(name="image_folder", size=8), raw)
    assert images[:, 0, 0, 0].tolist() == [80, 70]


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("2/again.png", "2/img 0.png", "2/again.png and 2/img 0.png are one file"),
        ("2/other.png", "10/img 0.png", "10/img 0.png and 2/other.png are one file"),
        ("2/other", "10", "10/img 0.png and 2/other/img 0.png are one file"),
        ("4", "2", "2/img 0.png and 4/img 0.png are one file"),
        ("2/loop", "2", "the link 2/loop leads to the folder 2, whose images are counted already"),
        ("2/loop", ".", "the link 2/loop/2 leads to the folder 2, whose images are counted already"),
    ],
)
def test_an_image_that_a_link_repeats_is_refused(link, target, message, root, raw):
    (root / link).symlink_to(root / target)
    with pytest.raises(Refused) as caught:
        index_of(root, raw)
    assert message in caught.value.message
    assert not raw.exists()


@pytest.mark.parametrize("second", ["./1/img 0.png", "1//img 0.png", "linked/img 0.png"])
def test_an_image_that_a_csv_repeats_is_refused(second, root, raw):
    (root / "linked").symlink_to(root / "1")
    path = table(root, f"path,label\n1/img 0.png,a\n{second},b\n")
    with pytest.raises(Refused, match=r"1/img 0\.png and .* are one file"):
        index_of(path, raw)


@pytest.mark.parametrize("target", ["gone.png", "2/nowhere.png"])  # nothing, and itself
def test_a_link_that_leads_nowhere_is_a_broken_file(target, root, raw, caplog):
    (root / "2" / "nowhere.png").symlink_to(root / target)
    with pytest.raises(Refused, match=r"(?s)1 of 7 files in .*2/nowhere\.png: "):
        index_of(root, raw)
    index = index_of(root, raw, broken="exclude")
    assert len(index) == 6
    assert "1 of 7 files" in caplog.text
    assert str(root) not in str(index.attrs)


def test_a_class_folder_that_is_a_broken_link_is_refused(root, raw):
    (root / "7").symlink_to(root / "gone")
    with pytest.raises(Refused, match="the link 7 leads nowhere"):
        index_of(root, raw)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such name")
def test_a_name_that_is_not_utf_8_is_refused(root, raw):
    image(root / "2" / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(Refused, match=r"the name '2/caf\\udce9\.png' is not UTF-8"):
        index_of(root, raw)


def test_names_of_any_script_with_spaces_and_commas_are_kept(root, raw):
    names = ["déjà vu, 1.png", " spaced  out .png", "猫.png", "a#b%20c.png"]
    for k, name in enumerate(names):
        image(root / "2" / name, k)
    index = index_of(root, raw)
    assert {f"2/{name}" for name in names} <= set(index["image"])
    path = table(root, 'path,label\n"2/déjà vu, 1.png",a\n2/猫.png,b\n')
    assert index_of(path, raw)["image"].tolist() == ["2/déjà vu, 1.png", "2/猫.png"]


def test_a_truncated_image_is_found_before_it_is_packed(root, raw, caplog):
    photo = root / "2" / "photo.jpg"
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (90, 90, 3)).astype(np.uint8)).save(photo)
    photo.write_bytes(photo.read_bytes()[:3000])
    with pytest.raises(Refused, match=r"1 of 7 files .*\n  2/photo\.jpg: image file is truncated"):
        index_of(root, raw)
    index = index_of(root, raw, broken="exclude")
    assert len(index) == 6
    assert list(index.attrs["left_out"]) == ["2/photo.jpg"]
    assert "2/photo.jpg" in caplog.text
    packed = pack(index.assign(row=range(6)), Source(name="image_folder", size=8), raw)
    assert packed.shape == (6, 8, 8, 3)


def test_intact_images_give_an_empty_left_out(root, raw):
    assert index_of(root, raw, broken="exclude").attrs["left_out"] == {}


def test_left_out_files_are_stored_with_the_index(spoilt, raw, tmp_path):
    index = index_of(spoilt, raw, broken="exclude")
    Parquet(str(tmp_path / "index.parquet")).save(index)
    kept = Parquet(str(tmp_path / "index.parquet")).load().attrs["left_out"]
    assert kept == {"1/notes.txt": "not an image that Pillow knows", "10/zero.png": "the file is empty"}


def test_the_lines_of_a_csv_are_counted_as_in_the_file(root, raw):
    path = table(root, 'path,label\n\n10/img 0.png,"two\nlines"\n\ngone.png,a\n')
    with pytest.raises(Refused, match=r"line 6: no file gone\.png"):
        index_of(path, raw)


@pytest.mark.parametrize(
    ("name", "message"), [("", "no folder is named"), ("/no/such/folder", "no folder or file /no/such")]
)
def test_without_a_folder_the_message_says_what_to_name(name, message, raw):
    with pytest.raises(Refused, match=message) as caught:
        index_of(name, raw)
    for part in ("LTPIPE_IMAGE_FOLDER", "path,label[,attribute][,split]", "class folders"):
        assert part in caught.value.message.replace("class \nfolders", "class folders")


@pytest.fixture(scope="module")
def shipped():
    return load(Path(__file__).resolve().parents[1] / "conf/base", ["image_folder"])["image_folder"]


@pytest.fixture
def ten(tmp_path):
    """Write ten classes of 20 images; their names sort differently as numbers and as text."""
    for label in range(10):
        for k in range(20):
            image(tmp_path / "ten" / str(label + 3) / f"{k:02d}.png", 20 * label + k)
    return tmp_path / "ten"


def through(spec, root, raw, **options):
    """Run the benchmark's stages fetch and split on these images; return admitted manifest and packed images."""
    source = spec.source.model_copy(update={"options": {"root": str(root)}})
    split = spec.split.model_copy(update={"options": spec.split.options | options})
    manifest = draw(fetch(source, raw)[0], split)
    return admit(manifest, validate(manifest, raw, spec.expect)[0]), pack(manifest, source, raw)


def test_the_shipped_benchmark_takes_ten_class_folders_as_they_are(shipped, ten, raw):
    manifest, images = through(shipped, ten, raw)
    assert manifest.groupby(["split", "label"]).size().unstack(0).drop_duplicates().to_dict("records") == [
        {"train": 15, "val": 1, "test": 4}
    ]
    assert class_names(manifest) == [str(label + 3) for label in range(10)]
    assert images.shape == (200, 64, 64, 3)
    assert (images[manifest["row"], 0, 0, 0] == 20 * manifest["label"] + manifest["image"].str[-6:-4].astype(int)).all()


def test_the_shipped_benchmark_imposes_a_long_tail(shipped, ten, raw):
    manifest, _ = through(shipped, ten, raw, profile={"shape": "exponential", "largest": 15, "rho": 5})
    sizes = manifest[manifest["split"] == "train"].groupby("label").size().tolist()
    assert sizes == [15, 12, 10, 8, 7, 6, 5, 4, 3, 3]


def test_the_shipped_benchmark_takes_a_csv_with_attributes_and_splits(shipped, ten, raw):
    part = ["train"] * 13 + ["val"] * 3 + ["test"] * 4
    rows = [
        f"{label + 3}/{k:02d}.png,c{label},{'dark' if k % 4 else 'light'},{part[k]}"
        for label in range(10)
        for k in range(20)
    ]
    path = table(ten, "path,label,attribute,split\n" + "\n".join(rows))
    manifest, _ = through(shipped, path, raw, official=True)
    assert manifest.groupby("split").size().to_dict() == {"test": 40, "train": 130, "val": 30}
    assert manifest.groupby("attribute").size().to_dict() == {0: 150, 1: 50}


def test_an_eleventh_class_is_refused_by_the_shipped_benchmark(shipped, ten, raw):
    for k in range(10):
        image(ten / "one more" / f"{k}.png", 240 + k)
    with pytest.raises(Refused, match="expect_column_values_to_be_in_set label"):
        through(shipped, ten, raw)


def test_a_missing_class_is_refused_by_the_shipped_benchmark(shipped, ten, raw):
    shutil.rmtree(ten / "12")
    with pytest.raises(Refused, match="class 9 has no image in any split"):
        through(shipped, ten, raw)
