"""Official list files: one image per line, "relative/path label".

a path with spaces                      allowed: the label is the text after the last space
CRLF line ends, empty lines             allowed, ignored
a line without label, a path listed twice, a label out of range, a class without image
                                        Refused, with the line numbers
a path in two lists of one dataset      Refused, with both lists: no image may be in two splits
a listed file that is not on the disk   Refused, with the number and up to 10 names; a link to a file is a file,
                                        a broken link is not on the disk
a listed file that cannot be decoded    Refused when images are packed, with all such files in one message
                                        (ltpipe.data.decode). None is left out: the sizes of an official split are
                                        published, and unpacking its archive again restores the files
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ltpipe.config.spec import Refused
from ltpipe.data.acquire.download import Remote, fetch_file
from ltpipe.storage.table import Table

# the order of the index's columns, as in ltpipe.data.fetch, which this module may not import
COLUMNS = ("image", "source", "file", "label", "class_name", "attribute", "official")

# names or problems that a message shows
SHOWN = 10
ORIGIN = "https://raw.githubusercontent.com/facebookresearch/classifier-balancing/f162adef63fdf592d0b8a0f6e52bc481fc08785f/data"


class Entry(NamedTuple):
    """A line of a list."""

    file: str
    label: int


def official_list(folder: str, name: str, blob: str) -> Remote:
    """Return a list of Kang et al. (ICLR 2020), at a fixed commit; other projects use files of the same blob ids."""
    return Remote(f"{ORIGIN}/{folder}/{name}", f"git:{blob}")


def load_lists(lists: Mapping[str, Remote], raw: Path, classes: int) -> dict[str, list[Entry]]:
    """Return split -> its entries in the list's order. Lists that raw/lists lacks are downloaded."""
    paths = {split: fetch_file(remote, raw / "lists") for split, remote in lists.items()}
    # utf-8-sig: a byte order mark would otherwise be part of the first path
    entries = {split: parse_list(path.read_text("utf-8-sig"), str(path), classes) for split, path in paths.items()}
    _check_disjoint(entries, raw / "lists")
    return entries


def _check_disjoint(lists: Mapping[str, Sequence[Entry]], folder: Path) -> None:
    """Raise Refused if an image is in two lists."""
    first_split: dict[str, str] = {}
    problems = [
        f"{entry.file} is in {first_split[entry.file]} and in {split}"
        for split, entries in lists.items()
        for entry in entries
        if first_split.setdefault(entry.file, split) != split
    ]
    if problems:
        raise Refused(f"the lists in {folder} share {len(problems)} images:\n  " + "\n  ".join(problems[:SHOWN]))


def parse_list(text: str, where: str, classes: int) -> list[Entry]:
    """Return the entries of a list in its order.

    where: what a message calls the list. Raises Refused if a line is wrong, or if a class of 0 .. classes - 1 has no
    image.
    """
    labels: dict[str, int] = {}
    problems = []
    # not splitlines(), which also splits at characters that a file name may hold
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        file, label = _split_line(line)
        if problem := _find_problem(file, label, classes, labels):
            problems.append(f"line {number}: {problem}")
        else:
            labels[file] = int(label)
    if missing := sorted(set(range(classes)) - set(labels.values())):
        problems.append(f"no image of class {join_first(map(str, missing))}")
    if problems:
        raise Refused(f"{where} is not a list of images of {classes} classes:\n  " + "\n  ".join(problems[:SHOWN]))
    return [Entry(file, label) for file, label in labels.items()]


def build_list_index(lists: Mapping[str, Remote], raw: Path, classes: int, what: str) -> Table:
    """Return the lists as an index; `image` is the path without its suffix, class_name is empty.

    what: what a message calls the lists. Raises Refused if a listed file is missing.
    """
    import pandas as pd

    rows = [(split, *entry) for split, entries in load_lists(lists, raw, classes).items() for entry in entries]
    table = pd.DataFrame(rows, columns=["official", "file", "label"])
    require_files(table["file"].tolist(), raw, what)
    image = table["file"].str.rsplit(".", n=1).str[0]
    table = table.assign(image=image, source=image, class_name="", attribute=-1)
    return table.astype({"label": "int64", "attribute": "int64"})[list(COLUMNS)]


def _split_line(line: str) -> tuple[str, str]:
    file, _, label = line.strip().rpartition(" ")
    return file.strip(), label


def _find_problem(file: str, label: str, classes: int, listed: Mapping[str, int]) -> str:
    """Return what is wrong with a line, or ""."""
    # isascii: isdigit alone also accepts digits of other scripts
    if not file or not (label.isascii() and label.isdigit()):
        return f"{f'{file} {label}'.strip()!r} is not a path and a label"
    if int(label) >= classes:
        return f"label {label} of {file}; valid labels: 0 to {classes - 1}"
    if file.startswith("/") or ".." in file.split("/"):
        return f"{file} is not a path below the dataset's folder"
    return f"{file} is listed twice" if file in listed else ""


def require_files(files: Sequence[str], folder: Path, what: str) -> None:
    """Raise Refused if a listed file is not below `folder`. what: what the message calls the list."""
    root = os.fspath(folder)
    missing = [file for file in files if not os.path.isfile(f"{root}/{file}")]  # noqa: PTH113 - a million Path objects
    if missing:
        raise Refused(f"{what}: {len(missing)} of {len(files)} listed files are not in {folder}: {join_first(missing)}")


def join_first(names: Iterable[str]) -> str:
    """Return the first 10 names, separated by commas, for a message."""
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
