"""Digests of a user's files: read once, read again if size or time changed, never taken from another folder."""

import os

import pytest

from ltpipe.data.acquire import content
from ltpipe.data.acquire.content import content_digests


@pytest.fixture
def folder(tmp_path):
    for number in range(200):
        (tmp_path / f"images/{number}").parent.mkdir(exist_ok=True)
        (tmp_path / f"images/{number}").write_bytes(b"%d" % (number % 50))
    return tmp_path


NAMES = [str(number) for number in range(200)]


@pytest.fixture
def read(monkeypatch):
    """Names of the files whose content was read."""
    names, digest = [], content._digest
    monkeypatch.setattr(content, "_digest", lambda path: names.append(path.rsplit("/", 1)[-1]) or digest(path))
    return names


def test_equal_contents_have_equal_digests_in_the_order_of_the_names(folder):
    digests = content_digests(folder / "images", NAMES, folder / "raw")
    assert digests[:50] == digests[50:100] and len(set(digests)) == 50
    assert content_digests(folder / "images", NAMES[::-1], folder / "raw") == digests[::-1]


def test_only_files_of_another_size_or_time_are_read_again(folder, read):
    first = content_digests(folder / "images", NAMES, folder / "raw")
    assert sorted(read) == sorted(NAMES)
    read.clear()
    assert content_digests(folder / "images", NAMES, folder / "raw") == first and read == []
    (folder / "images/7").write_bytes(b"x")
    os.utime(folder / "images/8", (1, 1))
    status = (folder / "images/9").stat()
    (folder / "images/9").write_bytes(b"8")  # the size and the time of modification that it had
    os.utime(folder / "images/9", ns=(status.st_atime_ns, status.st_mtime_ns))
    second = content_digests(folder / "images", NAMES, folder / "raw")
    assert sorted(read) == ["7", "8", "9"]
    assert [n for n, (a, b) in enumerate(zip(first, second, strict=True)) if a != b] == [7, 9]


def test_a_file_of_the_same_name_size_and_time_in_another_folder_is_read(folder, read):
    content_digests(folder / "images", NAMES, folder / "raw")
    (folder / "others").mkdir()
    (folder / "others/10").write_bytes(b"99")
    status = (folder / "images/10").stat()
    os.utime(folder / "others/10", ns=(status.st_atime_ns, status.st_mtime_ns))
    before = content_digests(folder / "images", ["10"], folder / "raw")
    read.clear()
    assert content_digests(folder / "others", ["10"], folder / "raw") != before
    assert read == ["10"]


@pytest.mark.parametrize("text", ["", "[", "[]", '{"1": 3}', '{"1": [1]}', "\xff"])
def test_a_damaged_cache_is_not_believed(folder, read, text):
    first = content_digests(folder / "images", NAMES, folder / "raw")
    (cache,) = (folder / "raw").iterdir()
    cache.write_bytes(text.encode("latin1"))
    read.clear()
    assert content_digests(folder / "images", NAMES, folder / "raw") == first and len(read) == 200


def test_a_cache_that_cannot_be_written_is_a_warning(folder, caplog):
    (folder / "raw").write_text("a file in the place of the folder")
    assert len(content_digests(folder / "images", NAMES, folder / "raw")) == 200
    assert "every file will be read again" in caplog.text


def test_files_that_another_caller_asked_for_are_not_read_again(folder, read):
    first = content_digests(folder / "images", NAMES, folder / "raw")
    (folder / "images/7").write_bytes(b"other")
    content_digests(folder / "images", ["3", "7"], folder / "raw")
    read.clear()
    second = content_digests(folder / "images", NAMES, folder / "raw")
    assert read == [] and [a == b for a, b in zip(first, second, strict=True)].count(False) == 1
