"""Find image files, and read one as a model's input. What cannot be read has a reason in plain words.

Files come in the order in which they are named; those of a folder by name, each folder in its place among them. Links
are followed. Only the names of the folders on the way down to the current file are in memory.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.data.decode import Picture, measure_picture, read_square
from ltpipe.serving.preprocessing import Preprocessing

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
# what is no file, by its type
KINDS = {
    stat.S_IFDIR: "a folder, not a file",
    stat.S_IFIFO: "a pipe, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


class Found(NamedTuple):
    """A file to read, or what is known to be unreadable. fault: the reason, "" if there is none yet."""

    path: Path
    fault: str = ""


class Level(NamedTuple):
    """An open folder of a search. key: device and inode, by which a link back to it is known."""

    folder: str
    key: tuple[int, int]
    names: Iterator[str]


def find_images(paths: Sequence[Path]) -> Iterator[Found]:
    """Yield the named files, and the files with an image's ending in the named folders and below."""
    for path in paths:
        if path.is_dir():
            yield from _search(str(path))
        else:
            yield Found(path)


def require_images(paths: Sequence[Path]) -> None:
    """Raise Refused if a path does not exist, or is a folder without image files."""
    for path in paths:
        if not os.path.lexists(path):
            raise Refused(f"{show(path)} does not exist")
        if path.is_dir() and next(_search(str(path)), None) is None:
            raise Refused(f"no image in {show(path)}; endings looked for: {' '.join(SUFFIXES)}")


def _search(top: str) -> Iterator[Found]:
    levels: list[Level] = []
    if fault := _enter(top, levels):
        yield Found(Path(top), fault)
    while levels:  # not recursion: folders may be deeper than Python's stack
        name = next(levels[-1].names, None)
        if name is None:
            levels.pop()
            continue
        path = os.path.join(levels[-1].folder, name)  # noqa: PTH118 - a Path for each other file would be slow
        if name.lower().endswith(SUFFIXES):
            yield Found(Path(path))
        elif os.path.isdir(path) and (fault := _enter(path, levels)):  # noqa: PTH112
            yield Found(Path(path), fault)


def _enter(folder: str, levels: list[Level]) -> str:
    """Open a folder as the innermost level. Return why that is not possible, or ""."""
    try:
        status = os.stat(folder)  # noqa: PTH116
        key = (status.st_dev, status.st_ino)
        if any(level.key == key for level in levels):
            return "a link to a folder that it lies in"
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone take a fifth of the memory
    except OSError as error:
        return error.strerror or str(error)
    levels.append(Level(folder, key, iter(names)))
    return ""


def read_image(found: Found, steps: Preprocessing, as_is: bool) -> np.ndarray | str:
    """Return the image as the model takes it, uint8, size x size x 3; or, as text, why that is not possible.

    as_is: only images that have the model's size already.
    """
    if fault := found.fault or _find_fault(found.path):
        return fault
    try:
        if as_is and (fault := _find_other_size(found.path, steps.size)):
            return fault
        return read_square(found.path, steps.size, shrink=steps.jpeg == "shrunk")
    except Refused as refused:
        return refused.message


def _find_fault(path: Path) -> str:
    """Return why the path is no file, or "". Opening a pipe would wait for ever, so its type is looked at first."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else "no such file"
    except OSError as error:
        return error.strerror or str(error)
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "not a file")


def _find_other_size(path: Path, size: int) -> str:
    try:
        width, height = measure_picture(Picture(path))
    except Exception:  # noqa: BLE001 - read_square, which is next, finds the same and says it in plain words
        return ""
    return "" if (width, height) == (size, size) else f"{width} x {height} pixels, and --as-is takes {size} x {size}"


def write_name(path: Path) -> str:
    r"""Return a path as UTF-8 text: bytes that are not UTF-8 become \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def show(path: Path) -> str:
    """Return a path for a message of one line: characters that a terminal would act on are escaped, too."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in write_name(path))
