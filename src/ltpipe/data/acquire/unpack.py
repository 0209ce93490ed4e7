"""Archives from elsewhere: tar (plain or compressed) and zip, into a folder that is whole or absent.

Only plain files and folders below the archive's own top folder come out. Absolute paths, `..`, links and devices are
refused, not repaired: no official archive of this project has them. (Python's `data` filter for tar renames absolute
paths and follows links inside the archive; zip has no such filter.)
"""

import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from ltpipe.config.spec import Refused

# what the readers of the formats raise of damaged content
BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError)

SIZE = 8 << 30
COUNT = 2_000_000


class Member(NamedTuple):
    """One entry of an archive. kind: file, folder, or what else it is."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, top: str, size: int = SIZE, count: int = COUNT) -> Path:
    """The archive's folder `top`, beside the archive; one that is there already is used as it is.

    size, count: bytes and entries that are unpacked at most.
    Raises Refused where the archive is broken, holds anything but files and folders, or exceeds a limit.
    """
    target = archive.parent / top
    if target.is_dir():
        return target
    try:
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{top}.") as name:
            _extract(archive, Path(name), size, count)
            _publish(_whole(archive, Path(name), top), target)
    except OSError as error:
        raise Refused(f"cannot unpack {archive} in its folder: {error}; nothing is kept") from None
    return target


def _whole(archive: Path, folder: Path, top: str) -> Path:
    """The folder `top` among what came out."""
    if not (folder / top).is_dir():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise Refused(f"{archive} holds no folder {top}, but {found}")
    return folder / top


def _publish(whole: Path, target: Path) -> None:
    try:
        whole.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was first
            raise


def _extract(archive: Path, folder: Path, size: int, count: int) -> None:
    try:
        for number, member in enumerate(_members(archive), start=1):
            size -= member.size
            if size < 0 or number > count:
                raise Refused(f"{archive} exceeds what is unpacked: more than {count:,} entries or too many bytes")
            _write(member, folder, archive)
    except (*BROKEN, EOFError, NotImplementedError, RuntimeError) as error:
        raise Refused(f"{archive} is broken or cannot be read: {error}") from None


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        return _of_zip(archive)
    if tarfile.is_tarfile(archive):
        return _of_tar(archive)
    raise Refused(f"{archive} is neither a tar nor a zip archive")


def _of_tar(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as opened:
        for info in opened:
            kind = "file" if info.isreg() else "folder" if info.isdir() else "a link or a device"
            yield Member(info.name, kind, info.size, partial(opened.extractfile, info))


def _of_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            plain = mode in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = "a link or a device" if not plain else "folder" if info.is_dir() else "file"
            yield Member(info.filename, kind, info.file_size, partial(opened.open, info))


def _write(member: Member, folder: Path, archive: Path) -> None:
    path = PurePosixPath(member.name)
    if member.kind not in ("file", "folder"):
        raise Refused(f"{archive}: entry {member.name!r} is {member.kind}; only files and folders are unpacked")
    if path.is_absolute() or ".." in path.parts or set(member.name) & set("\\\0"):
        raise Refused(f"{archive}: entry {member.name!r} would leave its folder; nothing is unpacked")
    target = folder / path
    try:
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, target.open("xb") as file:  # type: ignore[union-attr]
            shutil.copyfileobj(source, file)  # type: ignore[arg-type]
    except (FileExistsError, NotADirectoryError):
        raise Refused(f"{archive}: entry {member.name!r} is there twice") from None
