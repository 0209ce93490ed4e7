"""Official list files: one image a line, "relative/path label".

a path with spaces                      allowed: the label is what follows the last one
CRLF line ends, empty lines             allowed, ignored
a line without label, a path listed twice, a label out of range, a class without image
                                        Refused, with the line numbers
a path in two lists of one dataset      Refused, with both lists: no image is in two splits
a listed file that is not on the disk   Refused, with the number and up to 10 names; a link to a file is a file,
                                        one that leads nowhere is not on the disk
a listed file that cannot be decoded    Refused when images are packed, all of a piece at once (ltpipe.data.decode).
                                        None is left out: the sizes of an official split are published, and its
                                        archive, unpacked again, holds whole files
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ltpipe.config.spec import Refused
from ltpipe.data.acquire.download import Remote, get
from ltpipe.storage.table import Table

COLUMNS = ("image", "source", "file", "label", "class_name", "attribute", "official")

SHOWN = 10
ORIGIN = "https://raw.githubusercontent.com/facebookresearch/classifier-balancing/f162adef63fdf592d0b8a0f6e52bc481fc08785f/data"


class Entry(NamedTuple):
    """A line of a list."""

    file: str
    label: int


def official(folder: str, name: str, blob: str) -> Remote:
    """A list of Kang et al. (ICLR 2020), at the commit whose blob ids other projects share."""
    return Remote(f"{ORIGIN}/{folder}/{name}", f"git:{blob}")


def load(lists: Mapping[str, Remote], raw: Path, classes: int) -> dict[str, list[Entry]]:
    """The lists, fetched into raw/lists where they are not there yet: split -> its entries in the list's order."""
    paths = {split: get(remote, raw / "lists") for split, remote in lists.items()}
    found = {split: parse(path.read_text("utf-8-sig"), str(path), classes) for split, path in paths.items()}
    _apart(found, raw / "lists")
    return found


def _apart(found: Mapping[str, Sequence[Entry]], folder: Path) -> None:
    """Raises Refused where an image is in two lists."""
    seen: dict[str, str] = {}
    both = [
        f"{entry.file} is in {seen[entry.file]} and in {split}"
        for split, entries in found.items()
        for entry in entries
        if seen.setdefault(entry.file, split) != split
    ]
    if both:
        raise Refused(f"the lists in {folder} share {len(both)} images:\n  " + "\n  ".join(both[:SHOWN]))


def parse(text: str, where: str, classes: int) -> list[Entry]:
    """The entries of a list, every class of 0 .. classes - 1 among them."""
    entries: dict[str, int] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        file, label = _split(line)
        if problem := _problem(file, label, classes, entries):
            problems.append(f"line {number}: {problem}")
        else:
            entries[file] = int(label)
    if missing := sorted(set(range(classes)) - set(entries.values())):
        problems.append(f"no image of class {first(map(str, missing))}")
    if problems:
        raise Refused(f"{where} is not a list of images of {classes} classes:\n  " + "\n  ".join(problems[:SHOWN]))
    return [Entry(file, label) for file, label in entries.items()]


def index(lists: Mapping[str, Remote], raw: Path, classes: int, what: str) -> Table:
    """The lists as an index, class_name empty; every listed file must be there. image: the path without its ending."""
    import pandas as pd

    rows = [(split, *entry) for split, entries in load(lists, raw, classes).items() for entry in entries]
    table = pd.DataFrame(rows, columns=["official", "file", "label"])
    present(table["file"].tolist(), raw, what)
    image = table["file"].str.rsplit(".", n=1).str[0]
    table = table.assign(image=image, source=image, class_name="", attribute=-1)
    return table.astype({"label": "int64", "attribute": "int64"})[list(COLUMNS)]


def _split(line: str) -> tuple[str, str]:
    file, _, label = line.strip().rpartition(" ")
    return file.strip(), label


def _problem(file: str, label: str, classes: int, before: Mapping[str, int]) -> str:
    if not file or not (label.isascii() and label.isdigit()):
        return f"{f'{file} {label}'.strip()!r} is not a path and a label"
    if int(label) >= classes:
        return f"label {label} of {file}, valid are 0 to {classes - 1}"
    if file.startswith("/") or ".." in file.split("/"):
        return f"{file} is not a path below the dataset's folder"
    return f"{file} is listed twice" if file in before else ""


def present(files: Sequence[str], folder: Path, what: str) -> None:
    """Raises Refused where a listed file is not below `folder`."""
    root = os.fspath(folder)
    absent = [file for file in files if not os.path.isfile(f"{root}/{file}")]  # noqa: PTH113 - a million Path objects
    if absent:
        raise Refused(f"{what}: {len(absent)} of {len(files)} listed files are not in {folder}: {first(absent)}")


def first(names: Iterable[str]) -> str:
    """Up to 10 of the names, for a message."""
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
