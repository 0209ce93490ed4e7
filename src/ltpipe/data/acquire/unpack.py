"""Unpack archives from elsewhere: tar (plain or compressed) and zip, into a folder that is complete or absent.

Only plain files and folders below the archive's own top folder are unpacked. Absolute paths, `..`, links and devices
are refused, not repaired: no official archive of this project has them. (Python's `data` filter for tar renames
absolute paths and follows links inside the archive; zip has no such filter.)
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

# errors that the readers of the formats raise for damaged content
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError)

# defaults: bytes and entries that one archive may hold
SIZE = 8 << 30
COUNT = 2_000_000


class Member(NamedTuple):
    """One entry of an archive. kind: "file", "folder", or a description of anything else."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, top: str, size: int = SIZE, count: int = COUNT) -> Path:
    """Unpack the archive beside itself and return its folder `top`; an existing folder is used unchanged.

    size, count: the largest number of bytes and of entries.
    Raises Refused if the archive is damaged, holds anything but files and folders, or exceeds a limit; then nothing is
    left behind.
    """
    target = archive.parent / top
    if target.is_dir():
        return target
    try:
        # unpack into a temporary folder on the same disk, so that a rename publishes the complete folder at once
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{top}.") as name:
            _extract(archive, Path(name), size, count)
            _publish(_find_top(archive, Path(name), top), target)
    except OSError as error:
        raise Refused(f"cannot unpack {archive} in its folder: {error}; nothing is kept") from None
    return target


def _find_top(archive: Path, folder: Path, top: str) -> Path:
    """Return the folder `top` of the unpacked entries. Raises Refused if there is none."""
    if not (folder / top).is_dir():
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise Refused(f"{archive} holds no folder {top}, but {names}")
    return folder / top


def _publish(unpacked: Path, target: Path) -> None:
    try:
        unpacked.rename(target)
    except OSError:
        if not target.is_dir():  # if it is there, another process was faster, and its folder is used
            raise


def _extract(archive: Path, folder: Path, size: int, count: int) -> None:
    """Write the archive's entries below `folder`."""
    remaining = size
    try:
        for number, member in enumerate(_open_members(archive), start=1):
            # the sizes that the archive declares: a bomb is refused before it is written
            remaining -= member.size
            if remaining < 0 or number > count:
                raise Refused(f"{archive} is too large to unpack: more than {count:,} entries or {size:,} bytes")
            _write(member, folder, archive)
    # zipfile raises NotImplementedError for an unknown compression and RuntimeError for an encrypted entry
    except (*DAMAGED, EOFError, NotImplementedError, RuntimeError) as error:
        raise Refused(f"{archive} is damaged or cannot be read: {error}") from None


def _open_members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        return _read_zip(archive)
    if tarfile.is_tarfile(archive):
        return _read_tar(archive)
    raise Refused(f"{archive} is neither a tar nor a zip archive")


def _read_tar(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as opened:
        for info in opened:
            kind = "file" if info.isreg() else "folder" if info.isdir() else "a link or a device"
            yield Member(info.name, kind, info.size, partial(opened.extractfile, info))


def _read_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            # the upper 16 bits are the Unix mode; 0 if the archive was not made on Unix
            mode = stat.S_IFMT(info.external_attr >> 16)
            plain = mode in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = "a link or a device" if not plain else "folder" if info.is_dir() else "file"
            yield Member(info.filename, kind, info.file_size, partial(opened.open, info))


def _write(member: Member, folder: Path, archive: Path) -> None:
    """Write one entry below `folder`. Raises Refused if it is not allowed there."""
    path = PurePosixPath(member.name)
    if member.kind not in ("file", "folder"):
        raise Refused(f"{archive}: entry {member.name!r} is {member.kind}; only files and folders are unpacked")
    # a backslash separates folders on Windows
    if path.is_absolute() or ".." in path.parts or set(member.name) & set("\\\0"):
        raise Refused(f"{archive}: entry {member.name!r} would leave its folder; nothing is unpacked")
    target = folder / path
    try:
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        # "x" fails if an earlier entry has written this file
        with member.open() as source, target.open("xb") as file:  # type: ignore[union-attr]
            shutil.copyfileobj(source, file)  # type: ignore[arg-type]
    except (FileExistsError, NotADirectoryError):
        raise Refused(f"{archive}: entry {member.name!r} conflicts with an earlier entry") from None
