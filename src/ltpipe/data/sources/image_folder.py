"""A user's own images: a folder of class folders, one of split folders with class folders, or a CSV or parquet file.

Class folders: <root>/<class>/.../<image>. Classes are numbered in the order of their names: in numeric order if every
name is an integer (2 before 10), else in the order of text (10 before 2).

Split folders, as torchvision's users have them: <root>/train/<class>/..., and so with val (or valid, validation) and
test. A root is read so if all of its folders have these names, and one of them holds folders. Every split has the same
classes. Such folders beside others, or in capitals (Train), are Refused.

CSV (UTF-8): columns path (below the CSV's folder) and label; optional columns attribute and split. label and attribute
are names, numbered as classes are; an empty attribute is -1. split: train, val, test or empty. A parquet file has the
same columns.

    names that begin with a dot, files beside the class folders
                                    ignored
    spaces and commas in names      allowed (in a CSV, a path with a comma needs quotes)
    names that are not UTF-8, a class without image
                                    Refused
    links to files and folders      followed
    two paths to one file, a loop of folders
                                    Refused, with both paths: the image could be in two splits
    equal files of one class        Refused, with both paths: the splits, drawn or stated, could hold one picture twice,
                                    and a model would be tested on what it has seen; with option duplicates: exclude,
                                    one of them is kept (of test before val before train, then the first) and the
                                    others are in left_out
    equal files of two classes      Refused, with both paths: one of the labels is wrong
    a broken link                   a broken file; in the place of a class folder, Refused
    broken files: empty, cut short, no image, more pixels than Pillow's limit, floating point, no permission
                                    Refused; with option broken: exclude they are left out, with their number and the
                                    first names in the log, and all of them in the index's attrs under left_out
                                    (path -> reason)
    a file that is damaged between an intact header and an intact end
                                    Refused when images are packed (ltpipe.data.decode)

`file` begins with a name made of the images' paths and contents, under which the folder is linked below `raw`. So the
index names no folder of this machine, is the same wherever the same images lie, and changes with every image.
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
from ltpipe.data.acquire.content import content_digests
from ltpipe.data.acquire.image_lists import join_first
from ltpipe.data.acquire.local_folder import set_link
from ltpipe.data.decode import decode, find_broken
from ltpipe.storage.table import Table

NOTICE = "The user's own images: their licence is the user's to know.\n"

VARIABLE = "LTPIPE_IMAGE_FOLDER"
SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
COLUMNS = ("path", "label", "attribute", "split")
KEPT_FIRST = ("test", "val", "train", "")  # of equal files: that of the first of these splits
TWO_LABELS = "one picture cannot be of two classes: correct or remove one of each pair"
EQUAL = (
    "a picture in train and in test would be tested on after it was learned: remove one of each pair, or set "
    "source.options.duplicates: exclude in the benchmark's file, which keeps one (`ltpipe init ... --update` sets it)"
)
SHOWN = 10  # problems that a message shows

log = logging.getLogger("ltpipe.data")


class Config(Spec):
    """Where the images are, and what to do with broken files."""

    root: str = Field(
        "",
        description="folder of class folders, or of train, val and test with class folders, or a .csv or .parquet "
        "file; default: env LTPIPE_IMAGE_FOLDER",
    )
    broken: Literal["refuse", "exclude"] = Field(
        "refuse", description="refuse: broken files are an error; exclude: they are left out"
    )
    duplicates: Literal["refuse", "exclude"] = Field(
        "refuse",
        description="files of equal content and one class; refuse: an error; exclude: one of them is kept. Of two "
        "classes, they are always an error",
    )


class ListedImage(NamedTuple):
    """One image: path below the folder, names of class and attribute, split."""

    path: str
    label: str
    attribute: str = ""
    split: str = ""


def build_index(config: Config, raw: Path) -> Table:
    """Return the index of the images, in the order of their paths (folders) or of the CSV's lines.

    Its attrs: left_out, path -> reason of the files that are left out; equal, path -> the kept file of equal content;
    named_attributes, their names by number, if there are attributes.
    """
    import pandas as pd

    root = _find_root(config)
    folder, rows = (root.parent, _read_table(root)) if root.is_file() else (root, _list_folders(root))
    _check_distinct(rows, folder)
    rows, broken = _drop_broken(rows, folder, config)
    contents = dict(zip(rows, content_digests(folder, [row.path for row in rows], raw), strict=True))
    rows, equal = _drop_equal(rows, contents, folder, config)
    set_link(folder, raw / (place := _place(rows, [contents[row] for row in rows])))
    labels, attributes = (
        _number_names(row.label for row in rows),
        _number_names(row.attribute for row in rows if row.attribute),
    )
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
    if attributes:
        table.attrs["named_attributes"] = sorted(attributes, key=lambda name: attributes[name])
    table.attrs["left_out"] = dict(broken) | {path: f"same content as {kept}" for path, kept in equal.items()}
    table.attrs["equal"] = equal
    return table


def _find_root(config: Config) -> Path:
    """Return the folder or the CSV file that the option or the environment variable names."""
    name = config.root or os.environ.get(VARIABLE, "")
    root = Path(name).expanduser().resolve()
    if not name or not root.exists():
        problem = f"no folder or file {root}" if name else "no folder is named"
        raise Refused(
            f"source image_folder: {problem}; option root (or environment variable {VARIABLE}) names a folder of class "
            f"folders, or a CSV or parquet file with the columns path,label[,attribute][,split]"
        )
    return root


def _drop_equal(
    rows: list[ListedImage], contents: Mapping[ListedImage, str], folder: Path, config: Config
) -> tuple[list[ListedImage], dict[str, str]]:
    """Return the rows with one of each set of equal files, and path -> kept path of the others.

    contents: digest of each row's file. Raises Refused if equal files have two labels, or if the option does not
    exclude them.
    """
    kept: dict[str, ListedImage] = {}
    # what is tested on stays whole: a picture that train has too is taken from train
    for row in sorted(rows, key=lambda row: KEPT_FIRST.index(row.split)):
        kept.setdefault(contents[row], row)
    pairs = [(kept[contents[row]], row) for row in rows if kept[contents[row]] is not row]
    _refuse_problems(folder, [_describe_equal(*pair) for pair in pairs if pair[0].label != pair[1].label], TWO_LABELS)
    if config.duplicates == "refuse":
        _refuse_problems(folder, [_describe_equal(*pair) for pair in pairs], EQUAL)
    elif pairs:
        shown = "\n  ".join(_describe_equal(*pair) for pair in pairs[:SHOWN])
        log.warning("%d files in %s are left out (duplicates: exclude):\n  %s", len(pairs), folder, shown)
    return [row for row in rows if kept[contents[row]] is row], {row.path: first.path for first, row in pairs}


def _describe_equal(first: ListedImage, second: ListedImage) -> str:
    labels = f", but the classes {first.label} and {second.label}" if first.label != second.label else ""
    splits = f" and are in two splits, {first.split} and {second.split}" if first.split != second.split else ""
    return f"{first.path} and {second.path} have the same content{splits}{labels}"


def _place(rows: Sequence[ListedImage], contents: Sequence[str]) -> str:
    """Return the folder's name below the raw folder: it changes with the paths and with the content of the images."""
    lines = (f"{row.path}\0{content}\n".encode() for row, content in zip(rows, contents, strict=True))
    return f"images-{hashlib.sha256(b''.join(lines)).hexdigest()[:16]}"


def _check_distinct(rows: Sequence[ListedImage], folder: Path) -> None:
    """Raise Refused if two paths lead to one file."""
    resolve_folder = cache(os.path.realpath)  # resolving every image's path would repeat the work for its folder
    first_path: dict[str, str] = {}
    problems = []
    for path in (row.path for row in rows):
        inner, _, name = path.rpartition("/")
        full = f"{folder}/{path}"
        target = os.path.realpath(full) if os.path.islink(full) else f"{resolve_folder(f'{folder}/{inner}')}/{name}"  # noqa: PTH114
        if first_path.setdefault(target, path) != path:
            problems.append(f"{first_path[target]} and {path} are one file")
    _refuse_problems(folder, problems)


def _list_folders(root: Path) -> list[ListedImage]:
    """Return the images of all class folders, class by class; with split folders, split by split."""
    names = _list_names(root)
    if _has_split_folders(root, names):
        rows = _list_splits(root, names)
    else:
        rows = [ListedImage(path, name) for name in names for path in _list_class(root, name)]
    _refuse_problems(root, [f"the name {row.path!a} is not UTF-8: rename it" for row in rows if not _is_text(row.path)])
    return rows


def _has_split_folders(root: Path, names: list[str]) -> bool:
    """Tell whether the folders of `root` are splits. Raises Refused if only some are: the splits would become classes.

    A class may be called train or test: only folders that hold folders are splits.
    """
    splits = [name for name in names if name.lower() in SPLIT_FOLDERS and _holds_folders(root / name)]
    odd = [name for name in names if name not in SPLIT_FOLDERS]
    if splits and odd:
        raise Refused(
            f"source image_folder: in {root}, {join_first(splits)} hold class folders as splits do, but these are no "
            f"names of splits: {join_first(odd)}; splits are called {', '.join(SPLIT_FOLDERS)}. Rename the folders or "
            "move them away, or list the images in a CSV"
        )
    return bool(splits)


def _holds_folders(folder: Path) -> bool:
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir())


def _list_splits(root: Path, folders: list[str]) -> list[ListedImage]:
    """Return the images of split folders. Raises Refused if a split is there twice, or lacks a class of another."""
    splits = [SPLIT_FOLDERS[folder] for folder in folders]
    if len(set(splits)) != len(splits):
        raise Refused(
            f"source image_folder: of {', '.join(folders)} in {root}, two are one split; keep one folder each"
        )
    classes = {folder: _list_names(root / folder) for folder in folders}
    every = sorted({name for names in classes.values() for name in names})
    # a misspelt folder would otherwise be a class of its own, without images to train or to test on
    missing = [f"{folder}/{name}" for folder in folders for name in every if name not in classes[folder]]
    if missing:
        raise Refused(
            f"source image_folder: no class folder {join_first(missing)} in {root}, though another split has that "
            f"class; if a split has no image of it, list the images in a CSV with a column split"
        )
    return [
        ListedImage(path, name, split=split)
        for folder, split in zip(folders, splits, strict=True)
        for name in classes[folder]
        for path in _list_class(root, f"{folder}/{name}")
    ]


def _list_names(root: Path) -> list[str]:
    """Return the names of the folders in `root`, sorted as text. Raises Refused if there is none."""
    entries = sorted(entry for entry in root.iterdir() if not entry.name.startswith("."))
    dead_links = [entry.name for entry in entries if entry.is_symlink() and not entry.exists()]
    _refuse_problems(root, [f"the link {name} leads nowhere" for name in dead_links])
    if not (names := [entry.name for entry in entries if entry.is_dir()]):
        raise Refused(f"source image_folder: no class folder in {root}; images belong into {root}/<class>/")
    return names


def _list_class(root: Path, name: str) -> list[str]:
    """Return the files of one class folder as paths below `root`, sorted. Raises Refused if there is none."""
    paths: list[str] = []
    first_path: dict[str, str] = {}
    for folder, inner, files in os.walk(root / name, followlinks=True):
        inner[:] = [entry for entry in inner if not entry.startswith(".")]  # os.walk then skips the other folders
        where = Path(folder).relative_to(root).as_posix()
        # a link to a folder above would otherwise be followed without end
        before = first_path.setdefault(os.path.realpath(folder), where)
        if before != where:
            problem = f"the link {where} leads to the folder {before}, whose images are counted already"
            _refuse_problems(root, [problem])
        paths += [f"{where}/{file}" for file in files if not file.startswith(".")]
    if not paths:
        raise Refused(f"source image_folder: no file in class folder {name} of {root}")
    return sorted(paths)


def _is_text(name: str) -> bool:
    """Tell whether a name is UTF-8; the bytes of other names are surrogates, which cannot be encoded."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_table(path: Path) -> list[ListedImage]:
    """Return the rows of a CSV or parquet file, in its order. Raises Refused if one is wrong or repeats a path."""
    parquet = path.suffix == ".parquet"
    rows, line = (_read_parquet(path), "row") if parquet else (_read_csv(path), "line")
    problems = {number: _find_problem(row, path.parent) for number, row in rows.items()}
    _refuse_problems(path, [f"{line} {number}: {problem}" for number, problem in problems.items() if problem])
    if not rows:
        raise Refused(f"source image_folder: {path} lists no image")
    first_line: dict[str, int] = {}
    repeated = [number for number, row in rows.items() if first_line.setdefault(row.path, number) != number]
    _refuse_problems(path, [f"{line} {number} repeats {line} {first_line[rows[number].path]}" for number in repeated])
    return list(rows.values())


def _read_csv(path: Path) -> dict[int, ListedImage]:
    """Return line number -> row of a CSV file. Raises Refused if it is none, or a line has not its fields."""
    try:
        # utf-8-sig: spreadsheet programs write a byte order mark, which would be part of the first column's name
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file, strict=True)
            return _parse_lines(lines, list(lines.fieldnames or []), path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"source image_folder: {path} is not a CSV file in UTF-8: {error}") from None


def _read_parquet(path: Path) -> dict[int, ListedImage]:
    """Return row number, from 1, -> row of a parquet file; a missing value is an empty one."""
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these types
        raise Refused(f"source image_folder: {path} is not a parquet file: {error}") from None
    _check_columns(list(table.columns), path)
    lines = table.astype(object).where(table.notna(), "").astype(str).to_dict("records")
    return {
        number: ListedImage(**{str(key): value.strip() for key, value in line.items()})
        for number, line in enumerate(lines, start=1)
    }


def _check_columns(columns: list[str], path: Path) -> None:
    if not {"path", "label"} <= set(columns) <= set(COLUMNS) or len(set(columns)) != len(columns):
        raise Refused(
            f"source image_folder: columns of {path} are {', '.join(columns)}; valid: path, label, and optionally "
            f"attribute and split, in any order"
        )


def _parse_lines(lines: "csv.DictReader[str]", columns: list[str], path: Path) -> dict[int, ListedImage]:
    """Return line number -> row, without empty lines. Raises Refused if columns or the number of fields are wrong."""
    _check_columns(columns, path)
    rows: dict[int, ListedImage] = {}
    problems = []
    for line in lines:
        # DictReader puts surplus fields under the key None, and fills missing fields with None
        if set(line) != set(columns) or None in line.values():
            problems.append(
                f"line {lines.line_num} does not have {len(columns)} fields (a path with a comma needs quotes)"
            )
        else:
            rows[lines.line_num] = ListedImage(**{column: str(line[column]).strip() for column in columns})
    _refuse_problems(path, problems)
    return rows


def _find_problem(row: ListedImage, folder: Path) -> str:
    """Return what is wrong with a row of a CSV, or ""."""
    if not row.path or not row.label:
        return "no path" if not row.path else "no label"
    if row.split not in ("", *SPLITS):
        return f"split {row.split!r}; valid: {', '.join(SPLITS)} or empty"
    if Path(row.path).is_absolute() or ".." in Path(row.path).parts:
        return f"{row.path} is not a path below {folder}"
    return "" if (folder / row.path).is_file() else f"no file {row.path} in {folder}"


def _refuse_problems(path: Path, problems: list[str], advice: str = "") -> None:
    """Raise Refused if there are problems, with the first ten, and what to do about them."""
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        lines = [f"source image_folder: {path}:", *problems[:SHOWN], *more, *filter(None, [advice])]
        raise Refused("\n  ".join(lines))


def _drop_broken(rows: list[ListedImage], folder: Path, config: Config) -> tuple[list[ListedImage], Mapping[str, str]]:
    """Return the rows of intact images, and path -> reason of the rows that are left out.

    Raises Refused if a file is broken and the option does not exclude it, or if a class has no intact image.
    """
    broken_files = find_broken([folder / row.path for row in rows])
    reasons = {path.relative_to(folder).as_posix(): reason for path, reason in broken_files.items()}
    if not reasons:
        return rows, {}
    shown = "\n  ".join(f"{path}: {reason}" for path, reason in list(reasons.items())[:SHOWN])
    summary = f"{len(reasons)} of {len(rows)} files in {folder} are not readable images:\n  {shown}"
    if config.broken == "refuse":
        raise Refused(f"source image_folder: {summary}\n  remove them, or set option broken: exclude")
    log.warning("%s\n  they are left out (broken: exclude)", summary)
    # as_posix: a CSV may spell a path as a//b, while the keys of `reasons` are a/b
    kept = [row for row in rows if Path(row.path).as_posix() not in reasons]
    if empty := sorted({row.label for row in rows} - {row.label for row in kept}):
        raise Refused(f"source image_folder: no readable image of class {join_first(empty)}; {summary}")
    return kept, reasons


def _number_names(names: Iterable[str]) -> dict[str, int]:
    """Return name -> number, in numeric order if every name is an integer, else in the order of text."""
    distinct = sorted(set(names))
    if all(re.fullmatch("-?[0-9]+", name) for name in distinct):
        distinct.sort(key=int)
    return {name: number for number, name in enumerate(distinct)}


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the images of `files`, uint8, N x size x size x 3; see ltpipe.data.decode."""
    return decode([raw / file for file in files], size)
