"""A user's own images: a folder of class folders, or a CSV file beside the images.

Class folders: <root>/<class>/.../<image>. Classes are numbered in the order of their names, numerically where every
name is a whole number (2 before 10), else as text.

CSV (UTF-8): columns path (below the CSV's folder) and label, and where wanted attribute and split. label and
attribute are names, numbered as classes are; an empty attribute is -1. split: train, val, test or empty.

    names that begin with a dot, files beside the class folders
                                    not looked at
    spaces in names                 allowed; so are commas (in a CSV, within quotes)
    names that are no UTF-8, a class without image
                                    Refused
    links to files and folders      followed
    two paths to one file, a loop of folders
                                    Refused, with both paths: the image would be in two splits
    a link that leads nowhere       a broken file; in the place of a class folder, Refused
    broken files: empty, cut short, no image, more pixels than Pillow's limit, floating point, no permission
                                    Refused; with option broken: exclude they are counted, named in the log, kept in
                                    the index's attrs under left_out (path -> reason), and left out
    a file that is damaged between a sound header and its end
                                    Refused when images are packed (ltpipe.data.decode)

`file` begins with a name made of the images' paths and sizes, under which the folder is linked below `raw`: the index
names no folder of this machine, and is the same wherever the same images lie.
"""

import csv
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.acquire.image_lists import first
from ltpipe.data.acquire.local_folder import link
from ltpipe.data.decode import broken, decode
from ltpipe.storage.table import Table

NOTICE = "The user's own images: their licence is the user's to know.\n"

VARIABLE = "LTPIPE_IMAGE_FOLDER"
SPLITS = ("train", "val", "test")
COLUMNS = ("path", "label", "attribute", "split")
SHOWN = 10

log = logging.getLogger("ltpipe.data")


class Config(Spec):
    """Where the images are, and what becomes of files that are none."""

    root: str = Field("", description="folder of class folders, or a .csv file; default: env LTPIPE_IMAGE_FOLDER")
    broken: Literal["refuse", "exclude"] = Field("refuse", description="what becomes of files that are no whole image")


class Row(NamedTuple):
    """One image: path below the folder, names of class and attribute, split."""

    path: str
    label: str
    attribute: str = ""
    split: str = ""


def build_index(config: Config, raw: Path) -> Table:
    """Index of the images, in the order of their paths (class folders) or of the CSV's lines."""
    import pandas as pd

    root = _root(config)
    folder, rows = (root.parent, _from_csv(root)) if root.is_file() else (root, _from_folders(root))
    _once(rows, folder)
    rows, left_out = _readable(rows, folder, config)
    link(folder, raw / (place := _place(rows, folder)))
    labels, attributes = _numbers(row.label for row in rows), _numbers(row.attribute for row in rows if row.attribute)
    table = pd.DataFrame(
        {
            "image": [row.path for row in rows],
            "source": [row.path for row in rows],
            "file": [f"{place}/{row.path}" for row in rows],
            "label": np.array([labels[row.label] for row in rows], dtype=np.int64),
            "class_name": [row.label for row in rows],
            "attribute": np.array([attributes.get(row.attribute, -1) for row in rows], dtype=np.int64),
            "official": [row.split for row in rows],
        }
    )
    table.attrs["left_out"] = left_out
    return table


def _root(config: Config) -> Path:
    name = config.root or os.environ.get(VARIABLE, "")
    root = Path(name).expanduser().resolve()
    if not name or not root.exists():
        problem = f"no folder or file {root}" if name else "no folder is named"
        raise Refused(
            f"source image_folder: {problem}; option root (or environment variable {VARIABLE}) names a folder of class "
            f"folders, or a CSV file with the columns path,label[,attribute][,split]"
        )
    return root


def _place(rows: Sequence[Row], folder: Path) -> str:
    """The folder's name below the raw folder: other images, or as many of other sizes, have another name."""
    sizes = (os.stat(f"{folder}/{row.path}").st_size for row in rows)  # noqa: PTH116 - a million Path objects
    lines = (f"{row.path}\0{size}\n".encode() for row, size in zip(rows, sizes, strict=True))
    return f"images-{hashlib.sha256(b''.join(lines)).hexdigest()[:16]}"


def _once(rows: Sequence[Row], folder: Path) -> None:
    """Raises Refused where two paths lead to one file."""
    real = cache(os.path.realpath)
    seen: dict[str, str] = {}
    twice = []
    for path in (row.path for row in rows):
        inner, _, name = path.rpartition("/")
        whole = f"{folder}/{path}"
        target = os.path.realpath(whole) if os.path.islink(whole) else f"{real(f'{folder}/{inner}')}/{name}"  # noqa: PTH114
        if seen.setdefault(target, path) != path:
            twice.append(f"{seen[target]} and {path} are one file")
    _complain(folder, twice)


def _from_folders(root: Path) -> list[Row]:
    classes = _classes(root)
    if set(classes) <= {*SPLITS, "valid", "validation"} and any(p.is_dir() for p in (root / classes[0]).iterdir()):
        raise Refused(
            f"source image_folder: {root} holds splits ({', '.join(classes)}), not classes; name one of them as root, "
            f"or list the images in a CSV with a column split"
        )
    rows = [Row(path, name) for name in classes for path in _files(root, name)]
    _complain(root, [f"the name {row.path!a} is not UTF-8: rename it" for row in rows if not _is_text(row.path)])
    if empty := sorted(set(classes) - {row.label for row in rows}):
        raise Refused(f"source image_folder: no file in class folder {first(empty)} of {root}")
    return rows


def _classes(root: Path) -> list[str]:
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    _complain(root, [f"the link {one.name} leads nowhere" for one in entries if one.is_symlink() and not one.exists()])
    if not (classes := [entry.name for entry in entries if entry.is_dir()]):
        raise Refused(f"source image_folder: no class folder in {root}; images belong into {root}/<class>/")
    return classes


def _files(root: Path, name: str) -> list[str]:
    found: list[str] = []
    seen: dict[str, str] = {}
    for folder, inner, files in os.walk(root / name, followlinks=True):
        inner[:] = [one for one in inner if not one.startswith(".")]
        where = Path(folder).relative_to(root).as_posix()
        before = seen.setdefault(os.path.realpath(folder), where)
        if before != where:
            _complain(root, [f"the link {where} leads to the folder {before}, whose images are counted already"])
        found += [f"{where}/{file}" for file in files if not file.startswith(".")]
    return sorted(found)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_csv(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file, strict=True)
            rows = _rows(lines, list(lines.fieldnames or []), path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"source image_folder: {path} is not a CSV file in UTF-8: {error}") from None
    _complain(path, [f"line {n}: {p}" for n, row in rows.items() if (p := _problem(row, path.parent))])
    if not rows:
        raise Refused(f"source image_folder: {path} lists no image")
    seen: dict[str, int] = {}
    _complain(
        path, [f"line {n} repeats line {seen[r.path]}" for n, r in rows.items() if seen.setdefault(r.path, n) != n]
    )
    return list(rows.values())


def _rows(lines: "csv.DictReader[str]", columns: list[str], path: Path) -> dict[int, Row]:
    """Line number -> its row; empty lines are left out."""
    if not {"path", "label"} <= set(columns) <= set(COLUMNS) or len(set(columns)) != len(columns):
        raise Refused(
            f"source image_folder: columns of {path} are {', '.join(columns)}; valid: path, label, and where wanted "
            f"attribute and split, in any order"
        )
    rows: dict[int, Row] = {}
    ragged = []
    for line in lines:
        if set(line) != set(columns) or None in line.values():
            ragged.append(f"line {lines.line_num} has not {len(columns)} fields (a path with a comma needs quotes)")
        else:
            rows[lines.line_num] = Row(**{column: str(line[column]).strip() for column in columns})
    _complain(path, ragged)
    return rows


def _problem(row: Row, folder: Path) -> str:
    if not row.path or not row.label:
        return "no path" if not row.path else "no label"
    if row.split not in ("", *SPLITS):
        return f"split {row.split!r}; valid: {', '.join(SPLITS)} or empty"
    if Path(row.path).is_absolute() or ".." in Path(row.path).parts:
        return f"{row.path} is not a path below {folder}"
    return "" if (folder / row.path).is_file() else f"no file {row.path} in {folder}"


def _complain(path: Path, problems: list[str]) -> None:
    if problems:
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise Refused(f"source image_folder: {path}:\n  " + "\n  ".join(problems[:SHOWN]) + more)


def _readable(rows: list[Row], folder: Path, config: Config) -> tuple[list[Row], Mapping[str, str]]:
    """The rows whose file is a whole image; the others are refused, or counted, named in the log and left out."""
    reasons = {
        path.relative_to(folder).as_posix(): why for path, why in broken([folder / r.path for r in rows]).items()
    }
    if not reasons:
        return rows, {}
    shown = "\n  ".join(f"{path}: {why}" for path, why in list(reasons.items())[:SHOWN])
    said = f"{len(reasons)} of {len(rows)} files in {folder} are no images that can be read:\n  {shown}"
    if config.broken == "refuse":
        raise Refused(f"source image_folder: {said}\n  remove them, or set option broken: exclude")
    log.warning("%s\n  they are left out (broken: exclude)", said)
    kept = [row for row in rows if Path(row.path).as_posix() not in reasons]
    if lost := sorted({row.label for row in rows} - {row.label for row in kept}):
        raise Refused(f"source image_folder: no readable image of class {first(lost)}; {said}")
    return kept, reasons


def _numbers(names: Iterable[str]) -> dict[str, int]:
    """Number of each name: in numeric order where every name is a whole number, else in the order of the text."""
    found = sorted(set(names))
    if all(re.fullmatch("-?[0-9]+", name) for name in found):
        found.sort(key=int)
    return {name: number for number, name in enumerate(found)}


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """The images of `files` at `size`; see ltpipe.data.decode."""
    return decode([raw / file for file in files], size)
