"""A user's own images: a folder of class folders, or a CSV file beside the images.

Class folders: <root>/<class>/.../<image>. Classes are numbered in the order of their names, numerically where every
name is a whole number (2 before 10), else as text. Names that begin with a dot are left out.

CSV (UTF-8): columns path (below the CSV's folder) and label, and where wanted attribute and split. label and
attribute are names, numbered as classes are; an empty attribute is -1. split: train, val, test or empty.
"""

import csv
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from ltpipe.data.decode import broken, decode
from ltpipe.data.local import link
from ltpipe.data.tables import Table
from ltpipe.specs import Refused, Spec

NOTICE = "The user's own images: their licence is the user's to know.\n"

VARIABLE = "LTPIPE_IMAGE_FOLDER"
SPLITS = ("train", "val", "test")
COLUMNS = ("path", "label", "attribute", "split")
SHOWN = 10

log = logging.getLogger("ltpipe.data")


class Config(Spec):
    """Where the images are, and what becomes of files that are none."""

    root: str = Field("", description="folder of class folders, or a .csv file; default: env LTPIPE_IMAGE_FOLDER")
    broken: Literal["refuse", "exclude"] = Field("refuse", description="files whose header is not that of an image")


class Row(NamedTuple):
    """One image: path below the folder, names of class and attribute, split."""

    path: str
    label: str
    attribute: str = ""
    split: str = ""


def fetch(config: Config, raw: Path) -> Table:
    """Index of the images, in the order of their paths (class folders) or of the CSV's lines."""
    import pandas as pd

    root = _root(config)
    folder, rows = (root.parent, _from_csv(root)) if root.is_file() else (root, _from_folders(root))
    rows = _readable(rows, folder, config)
    link(folder, raw / (place := _place(folder)))
    labels, attributes = _numbers(row.label for row in rows), _numbers(row.attribute for row in rows if row.attribute)
    return pd.DataFrame(
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


def _place(folder: Path) -> str:
    """The folder's name below the raw folder; different folders of one name differ by a hash of their path."""
    return f"{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]}"


def _from_folders(root: Path) -> list[Row]:
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise Refused(f"source image_folder: no class folder in {root}; images belong into {root}/<class>/")
    if set(classes) <= {*SPLITS, "valid", "validation"} and any(p.is_dir() for p in (root / classes[0]).iterdir()):
        raise Refused(
            f"source image_folder: {root} holds splits ({', '.join(classes)}), not classes; name one of them as root, "
            f"or list the images in a CSV with a column split"
        )
    rows = [Row(path, name) for name in classes for path in _files(root, name)]
    if empty := sorted(set(classes) - {row.label for row in rows}):
        raise Refused(f"source image_folder: no file in class folder {_first(empty)} of {root}")
    return rows


def _files(root: Path, name: str) -> list[str]:
    found = []
    for folder, inner, files in os.walk(root / name, followlinks=True):
        inner[:] = [one for one in inner if not one.startswith(".")]
        where = Path(folder).relative_to(root).as_posix()
        found += [f"{where}/{file}" for file in files if not file.startswith(".")]
    return sorted(found)


def _from_csv(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file, strict=True)
            rows = _rows(lines, list(lines.fieldnames or []), path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"source image_folder: {path} is not a CSV file in UTF-8: {error}") from None
    _complain(path, [f"line {n}: {p}" for n, row in enumerate(rows, start=2) if (p := _problem(row, path.parent))])
    if not rows:
        raise Refused(f"source image_folder: {path} lists no image")
    seen: dict[str, int] = {}
    again = [f"line {n} repeats line {seen[r.path]}" for n, r in enumerate(rows, 2) if seen.setdefault(r.path, n) != n]
    _complain(path, again)
    return rows


def _rows(lines: Iterable[dict[str, str | None]], columns: list[str], path: Path) -> list[Row]:
    if not {"path", "label"} <= set(columns) <= set(COLUMNS) or len(set(columns)) != len(columns):
        raise Refused(
            f"source image_folder: columns of {path} are {', '.join(columns)}; valid: path, label, and where wanted "
            f"attribute and split, in any order"
        )
    rows, ragged = [], []
    for number, line in enumerate(lines, start=2):
        if set(line) != set(columns) or None in line.values():
            ragged.append(f"line {number} has not {len(columns)} fields (a path with a comma needs quotes)")
        else:
            rows.append(Row(**{column: str(line[column]).strip() for column in columns}))
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


def _readable(rows: list[Row], folder: Path, config: Config) -> list[Row]:
    """The rows whose file has an image's header; the others are refused, or counted, named in the log and left out."""
    reasons = broken([folder / row.path for row in rows])
    if not reasons:
        return rows
    shown = "\n  ".join(f"{path.relative_to(folder)}: {why}" for path, why in list(reasons.items())[:SHOWN])
    said = f"{len(reasons)} of {len(rows)} files in {folder} are no images that can be read:\n  {shown}"
    if config.broken == "refuse":
        raise Refused(f"source image_folder: {said}\n  remove them, or set option broken: exclude")
    log.warning("%s\n  they are left out (broken: exclude)", said)
    kept = [row for row in rows if folder / row.path not in reasons]
    if lost := sorted({row.label for row in rows} - {row.label for row in kept}):
        raise Refused(f"source image_folder: no readable image of class {_first(lost)}; {said}")
    return kept


def _numbers(names: Iterable[str]) -> dict[str, int]:
    """Number of each name: in numeric order where every name is a whole number, else in the order of the text."""
    found = sorted(set(names))
    if all(re.fullmatch("-?[0-9]+", name) for name in found):
        found.sort(key=int)
    return {name: number for number, name in enumerate(found)}


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def read(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """The images of `files` at `size`; see ltpipe.data.decode."""
    return decode([raw / file for file in files], size)
