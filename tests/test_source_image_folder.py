"""A user's own images: class folders and CSV files, and what is said of those that are wrong."""

import numpy as np
import pytest
from PIL import Image

from ltpipe.data.fetch import COLUMNS, Source, fetch, pack
from ltpipe.data.rules import files_exist
from ltpipe.specs import Refused


@pytest.fixture(autouse=True)
def no_folder_from_outside(monkeypatch):
    monkeypatch.delenv("LTPIPE_IMAGE_FOLDER", raising=False)


def image(path, level=50):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 12), (level,) * 3).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    """Classes named by numbers, so that the order of the text is another: 1, 2, 10."""
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


def test_names_that_look_like_numbers_but_are_none_are_text(root, raw):
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


def test_folders_of_one_name_do_not_collide(root, raw, tmp_path):
    image(tmp_path / "other" / "photos" / "x" / "a.png", 99)
    first, second = index_of(root, raw), index_of(tmp_path / "other" / "photos", raw)
    assert files_exist(first, str(raw)) == files_exist(second, str(raw)) == []
    assert len(list(raw.iterdir())) == 2


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
            "columns of .* are file, label; valid: path, label, and where wanted attribute and split",
        ),
        ("path\na\n", "columns of .* are path; valid"),
        ("path,label,colour\na,b,c\n", "columns of .* are path, label, colour"),
        ("path,label,label\na,b,c\n", "columns of"),
        ("", "columns of"),
        ("path,label\n", "lists no image"),
        ("path,label\n10/img 0.png,a\n10/img 1.png\n", "line 3 has not 2 fields"),
        ("path,label\n10/img, 0.png,a\n", "line 2 has not 2 fields .a path with a comma needs quotes"),
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
    with pytest.raises(Refused, match=r"2 of 8 files in .* are no images that can be read") as caught:
        index_of(spoilt, raw)
    for part in ("1/notes.txt: not an image that Pillow knows", "10/zero.png: the file is empty", "broken: exclude"):
        assert part in caught.value.message
    assert not raw.exists()


def test_files_that_are_no_images_can_be_left_out_and_are_reported(spoilt, raw, caplog):
    index = index_of(spoilt, raw, broken="exclude")
    assert len(index) == 6
    assert "2 of 8 files" in caplog.text
    assert "1/notes.txt" in caplog.text


def test_a_class_of_which_nothing_is_left_is_refused(spoilt, raw):
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


def test_a_folder_of_splits_is_not_taken_for_classes(tmp_path, raw):
    for split in ("train", "val"):
        image(tmp_path / "data" / split / "cat" / "x.png")
    with pytest.raises(Refused, match=r"holds splits \(train, val\), not classes"):
        index_of(tmp_path / "data", raw)


@pytest.mark.parametrize(
    ("name", "message"), [("", "no folder is named"), ("/no/such/folder", "no folder or file /no/such")]
)
def test_without_a_folder_the_message_says_what_to_name(name, message, raw):
    with pytest.raises(Refused, match=message) as caught:
        index_of(name, raw)
    for part in ("LTPIPE_IMAGE_FOLDER", "path,label[,attribute][,split]", "class folders"):
        assert part in caught.value.message.replace("class \nfolders", "class folders")
