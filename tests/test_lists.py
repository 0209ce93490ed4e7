"""List files, "relative/path label": what is allowed, what is refused; and the official lists, if available."""

import gzip
import hashlib
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ltpipe.config.spec import Refused
from ltpipe.data.acquire import image_lists
from ltpipe.data.sources import imagenet2012, inaturalist2018, places365

OFFICIAL = os.environ.get("LTPIPE_OFFICIAL_LISTS", "")
GOOD = "train/a/1.jpg 0\ntrain/a/2.jpg 0\nval/b/3.jpg 1\n"


def test_a_list_is_read_in_its_order():
    assert image_lists.parse_list(GOOD, "x", 2) == [("train/a/1.jpg", 0), ("train/a/2.jpg", 0), ("val/b/3.jpg", 1)]


@pytest.mark.parametrize("text", [GOOD.replace("\n", "\r\n"), GOOD.rstrip("\n"), "\n" + GOOD + "\n\n", GOOD + "  \n"])
def test_line_ends_and_empty_lines_do_not_matter(text):
    assert image_lists.parse_list(text, "x", 2) == image_lists.parse_list(GOOD, "x", 2)


def test_a_path_may_hold_spaces():
    assert image_lists.parse_list("my images/a  b.jpg 0\n", "x", 1) == [("my images/a  b.jpg", 0)]


def test_labels_are_numbers_not_text():
    text = "".join(f"{label}.jpg {label}\n" for label in (10, 9, 2, *range(2), *range(3, 9)))
    assert [entry.label for entry in image_lists.parse_list(text, "x", 11)][:3] == [10, 9, 2]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train/a/1.jpg 1", "line 4: train/a/1.jpg is listed twice"),
        ("new.jpg 2", "line 4: label 2 of new.jpg; valid labels: 0 to 1"),
        ("new.jpg -1", "line 4: 'new.jpg -1' is not a path and a label"),
        ("new.jpg one", "line 4: 'new.jpg one' is not a path and a label"),
        ("new.jpg", "line 4: 'new.jpg' is not a path and a label"),
        ("7", "line 4: '7' is not a path and a label"),
        ("/etc/passwd 0", "line 4: /etc/passwd is not a path below"),
        ("a/../../b.jpg 0", r"line 4: a/../../b.jpg is not a path below"),
    ],
)
def test_a_bad_line_is_named(line, message):
    with pytest.raises(Refused, match=message) as caught:
        image_lists.parse_list(GOOD + line + "\n", "here.txt", 2)
    assert caught.value.message.startswith("here.txt is not a list of images of 2 classes")


def test_a_class_without_image_is_named():
    with pytest.raises(Refused, match="no image of class 2, 3"):
        image_lists.parse_list(GOOD, "x", 4)


def test_only_the_first_problems_are_shown():
    with pytest.raises(Refused) as caught:
        image_lists.parse_list("bad\n" * 100, "x", 1)
    assert len(caught.value.message.splitlines()) == 1 + image_lists.SHOWN


def test_listed_files_that_are_missing_are_counted_and_named(tmp_path):
    (tmp_path / "there.jpg").write_text("x")
    image_lists.require_files(["there.jpg"], tmp_path, "x")
    with pytest.raises(Refused, match=r"source x: 11 of 12 listed files are not in .*: gone0.jpg, .*gone9.jpg, \.\.\."):
        image_lists.require_files(["there.jpg", *(f"gone{i}.jpg" for i in range(11))], tmp_path, "source x")


def put(raw, texts):
    """Write lists into the raw folder as if they had been downloaded; return their remotes."""
    remotes = {}
    for split, text in texts.items():
        path = raw / "lists" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content := text.encode())
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        remotes[split] = image_lists.official_list("x", path.name, blob)
    return remotes


def test_existing_lists_with_the_right_blob_id_are_used(tmp_path):
    other = GOOD.replace("train/", "other/").replace("val/", "another/")
    loaded = image_lists.load_lists(put(tmp_path, {"train": GOOD, "val": "\ufeff" + other}), tmp_path, 2)
    assert loaded == {"train": image_lists.parse_list(GOOD, "x", 2), "val": image_lists.parse_list(other, "x", 2)}


def test_an_image_in_two_lists_is_refused_with_both(tmp_path):
    other = "val/b/4.jpg 1\ntrain/a/2.jpg 0\n"
    with pytest.raises(Refused, match=r"share 1 images:\n  train/a/2\.jpg is in train and in test$"):
        image_lists.load_lists(put(tmp_path, {"train": GOOD, "test": other}), tmp_path, 2)


def test_a_list_with_a_wrong_blob_id_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(image_lists, "fetch_file", partial(image_lists.fetch_file, pauses=()))
    remotes = put(tmp_path, {"train": GOOD})
    (tmp_path / "lists/train.txt").write_text(GOOD.replace("1.jpg 0", "1.jpg 1"))
    nowhere = remotes["train"]._replace(url="http://127.0.0.1:9/x/train.txt")
    with pytest.raises(Refused, match=r"(?s)cannot fetch train\.txt.*put the file at .* git:"):
        image_lists.load_lists({"train": nowhere}, tmp_path, 2)


def test_links_to_listed_files_are_files_and_broken_ones_are_not(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/there.jpg").write_text("x")
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (tmp_path / "one.jpg").symlink_to(tmp_path / "real/there.jpg")
    image_lists.require_files(["one.jpg", "folder/there.jpg"], tmp_path, "x")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with pytest.raises(Refused, match=r"2 of 3 listed files are not in .*: nowhere\.jpg, loop\.jpg"):
        image_lists.require_files(["one.jpg", "nowhere.jpg", "loop.jpg"], tmp_path, "x")


def test_the_official_lists_are_at_a_pinned_commit():
    for module, splits in ((imagenet2012, 3), (inaturalist2018, 2), (places365, 3)):
        assert len(module.LISTS) == splits
        for split, remote in module.LISTS.items():
            assert "/f162adef63fdf592d0b8a0f6e52bc481fc08785f/data/" in remote.url
            assert remote.name.endswith(f"_{split}.txt")
            assert len(remote.checksum) == len("git:") + 40


@pytest.mark.skipif(not OFFICIAL, reason="LTPIPE_OFFICIAL_LISTS does not name a folder of official lists (*.txt.gz)")
@pytest.mark.parametrize(
    ("name", "module", "split", "classes", "lines", "most", "least"),
    [
        ("ImageNet_LT_val", imagenet2012, "val", 1000, 20_000, 20, 20),
        ("ImageNet_LT_test", imagenet2012, "test", 1000, 50_000, 50, 50),
        ("iNaturalist18_val", inaturalist2018, "val", 8142, 24_426, 3, 3),
        ("Places_LT_train", places365, "train", 365, 62_500, 4980, 5),
    ],
)
def test_the_official_lists_parse(name, module, split, classes, lines, most, least, tmp_path):
    path = tmp_path / f"{name}.txt"
    path.write_bytes(gzip.decompress((Path(OFFICIAL) / f"{name}.txt.gz").read_bytes()))
    assert module.LISTS[split].matches(path)
    entries = image_lists.parse_list(path.read_text(), name, classes)
    sizes = Counter(entry.label for entry in entries)
    assert len(entries) == lines
    assert (max(sizes.values()), min(sizes.values())) == (most, least)
    if name == "Places_LT_train":
        counts = np.array([sizes[label] for label in range(classes)])
        assert [(counts > 100).sum(), ((counts <= 100) & (counts >= 20)).sum(), (counts < 20).sum()] == [131, 163, 71]
    if name == "ImageNet_LT_val":
        wnids = {entry.label: entry.file.split("/")[1] for entry in entries}
        assert [wnids[label] for label in range(1000)] == sorted(wnids.values())
