"""Archives: good ones are unpacked completely, bad ones leave nothing behind."""

import errno
import io
import os
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
from contextlib import suppress
from random import Random

import pytest

from ltpipe.config.spec import Refused
from ltpipe.data.acquire.unpack import unpack

FILES = {"top/a.txt": b"a" * 1000, "top/deep/er/b.txt": b"b", "top/empty": b""}


def tar(path, files, mode="w:gz", prefix=""):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def pack_zip(path, files, mode=0):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def content(folder):
    return {p.relative_to(folder.parent).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def left(folder, archive):
    return sorted(p.name for p in folder.iterdir() if p != archive)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_tar_is_unpacked_completely(mode, prefix, tmp_path):
    archive = tar(tmp_path / "x.tar", FILES, mode, prefix)
    assert unpack(archive, "top") == tmp_path / "top"
    assert content(tmp_path / "top") == FILES
    assert left(tmp_path, archive) == ["top"]


def test_a_zip_is_unpacked_completely(tmp_path):
    archive = pack_zip(tmp_path / "x.zip", FILES)
    unpack(archive, "top")
    assert content(tmp_path / "top") == FILES
    assert left(tmp_path, archive) == ["top"]


def test_an_existing_folder_is_used_unchanged(tmp_path):
    (tmp_path / "top").mkdir()
    assert unpack(tmp_path / "no archive", "top") == tmp_path / "top"


def link(name, target, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def device(name):
    info = tarfile.TarInfo(name)
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
    return info


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (tarfile.TarInfo("../escaped"), "would leave its folder"),
        (tarfile.TarInfo("top/../../escaped"), "would leave its folder"),
        (tarfile.TarInfo("/tmp/escaped-ltpipe"), "would leave its folder"),
        (tarfile.TarInfo("top\\..\\..\\escaped"), "would leave its folder"),
        (link("top/out", "/etc", tarfile.SYMTYPE), "a link or a device"),
        (link("top/out", "a.txt", tarfile.SYMTYPE), "a link or a device"),
        (link("top/hard", "top/a.txt", tarfile.LNKTYPE), "a link or a device"),
        (device("top/null"), "a link or a device"),
        (link("top/fifo", "", tarfile.FIFOTYPE), "a link or a device"),
        (tarfile.TarInfo("top/a.txt"), "conflicts with an earlier entry"),
        (tarfile.TarInfo("top/a.txt/inside"), "conflicts with an earlier entry"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_harmful_tar_leaves_nothing(entry, message, tmp_path):
    archive = tmp_path / "inner" / "x.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as opened:
        info = tarfile.TarInfo("top/a.txt")
        opened.addfile(info)
        opened.addfile(entry)
    with pytest.raises(Refused, match=message) as caught:
        unpack(archive, "top")
    assert str(archive) in caught.value.message
    assert left(archive.parent, archive) == []
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped-ltpipe", "top/../../escaped"])
def test_a_zip_that_would_leave_its_folder_leaves_nothing(name, tmp_path):
    archive = pack_zip(tmp_path / "x.zip", FILES | {name: b"x"})
    with pytest.raises(Refused, match="would leave its folder"):
        unpack(archive, "top")
    assert left(tmp_path, archive) == []


def test_a_link_in_a_zip_is_refused(tmp_path):
    archive = pack_zip(tmp_path / "x.zip", {"top/out": b"/etc"}, stat.S_IFLNK | 0o777)
    with pytest.raises(Refused, match="a link or a device"):
        unpack(archive, "top")


@pytest.mark.parametrize("limit", [{"size": 1000}, {"count": 2}])
@pytest.mark.parametrize("make", [tar, pack_zip])
def test_more_than_the_limit_is_refused(make, limit, tmp_path):
    archive = make(tmp_path / "archive", FILES)
    with pytest.raises(Refused, match="is too large to unpack"):
        unpack(archive, "top", **limit)
    assert left(tmp_path, archive) == []


def test_a_bomb_is_refused_by_its_unpacked_size(tmp_path):
    archive = pack_zip(tmp_path / "x.zip", {"top/zeros": bytes(20_000_000)})
    assert archive.stat().st_size < 100_000
    with pytest.raises(Refused, match="too large to unpack"):
        unpack(archive, "top", size=10_000_000)


@pytest.mark.parametrize("make", [tar, pack_zip])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_archive_leaves_nothing(make, share, tmp_path):
    archive = make(tmp_path / "archive", {f"top/{i}": os.urandom(3000) for i in range(20)})
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(Refused, match=r"damaged|neither a tar nor a zip"):
        unpack(archive, "top")
    assert left(tmp_path, archive) == []


def test_a_damaged_zip_member_is_refused(tmp_path):
    archive = pack_zip(tmp_path / "x.zip", {"top/a": os.urandom(5000)})
    damaged = bytearray(archive.read_bytes())
    damaged[2000] ^= 255
    archive.write_bytes(damaged)
    with pytest.raises(Refused, match="damaged"):
        unpack(archive, "top")
    assert left(tmp_path, archive) == []


@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_no_damage_of_a_compressed_tar_causes_a_crash(mode, tmp_path):
    """Damaged pixels may pass, because tar does not read as far as gzip's checksum; downloads are verified before."""
    archive = tar(tmp_path / "archive", {f"top/{i}": os.urandom(3000) for i in range(5)}, mode)
    whole, random = archive.read_bytes(), Random(0)
    for _ in range(60):
        place = random.randrange(len(whole))
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << random.randrange(8)]) + whole[place + 1 :])
        with suppress(Refused):
            unpack(archive, "top")
        shutil.rmtree(tmp_path / "top", ignore_errors=True)
        assert left(tmp_path, archive) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = tar(tmp_path / "x.tar", FILES)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(
        Refused, match=r"cannot unpack .*x\.tar in its folder: .*No space left on device; nothing is kept"
    ):
        unpack(archive, "top")
    assert left(tmp_path, archive) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def denied(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    archive = tar(tmp_path / "x.tar", FILES)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", denied)
    with pytest.raises(Refused, match=r"cannot unpack .*x\.tar in its folder: .*Permission denied"):
        unpack(archive, "top")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "page").write_text("<html>not found</html>")
    with pytest.raises(Refused, match="neither a tar nor a zip archive"):
        unpack(tmp_path / "page", "top")


def test_an_archive_without_the_folder_is_refused_with_what_it_holds(tmp_path):
    archive = tar(tmp_path / "x.tar", {"other/a": b"a"})
    with pytest.raises(Refused, match="holds no folder top, but other"):
        unpack(archive, "top")
    assert left(tmp_path, archive) == []


def test_concurrent_calls_leave_one_complete_folder(tmp_path):
    archive = tar(tmp_path / "x.tar", {f"top/{i}": b"x" * 100 for i in range(300)})
    failed = []

    def run():
        try:
            unpack(archive, "top")
        except BaseException as error:  # noqa: BLE001 - whatever it is
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert failed == []
    assert len(content(tmp_path / "top")) == 300
    assert left(tmp_path, archive) == ["top"]
