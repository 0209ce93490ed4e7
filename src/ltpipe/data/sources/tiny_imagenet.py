"""Tiny ImageNet: 200 classes of 500 training and 50 val images, 64 x 64, in the official layout.

Classes are numbered 0 .. 199 in the sorted order of their WordNet ids, as by torchvision's ImageFolder and in the
published code on this dataset (wnids.txt has another order). The val images lie in one folder; val_annotations.txt has
their labels. The test images have no labels and are left out.

    CRLF line ends, empty lines         allowed in every text file
    files not named *.JPEG              ignored
    wnids.txt lists a class twice, or does not list a class folder of train; a listed class has no image;
    a line of val_annotations.txt has no file and class, an unknown class, a missing file, or a file listed before;
    a val image has no line
                                        Refused, with the names
    an image that cannot be decoded     Refused when images are packed (ltpipe.data.decode): the official archive has
                                        none, unpack it again
"""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.acquire import image_lists
from ltpipe.data.acquire.download import Remote, fetch_file
from ltpipe.data.acquire.local_folder import set_link
from ltpipe.data.acquire.unpack import unpack
from ltpipe.data.decode import decode
from ltpipe.storage.table import Table

NOTICE = """Tiny ImageNet, Stanford CS231N, http://cs231n.stanford.edu/tiny-imagenet-200.zip: images of ImageNet under
ImageNet's terms of access (https://image-net.org/download): non-commercial research and education; the pictures
belong to their owners and may not be passed on.
"""

REMOTE = Remote("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "md5:90528d7ca1a48142e341f4ef8d21d0de", 248_100_043)
FOLDER = "tiny-imagenet-200"
VARIABLE = "LTPIPE_TINY_IMAGENET"


class Config(Spec):
    """Where the images are, unless they are to be downloaded."""

    root: str = Field(
        "",
        description="the unpacked folder tiny-imagenet-200; default: env LTPIPE_TINY_IMAGENET, or a download",
    )


def build_index(config: Config, raw: Path) -> Table:
    """Return the index of 110,000 images, train then val; download the archive (248 MB) unless a folder is named."""
    import pandas as pd

    folder = _find_folder(config, raw)
    wnids = _read_wnids(folder)
    rows = [*_list_train(folder, wnids), *_list_val(folder, wnids)]
    table = pd.DataFrame(rows, columns=["official", "image", "wnid", "file"])
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    names = _read_class_names(folder)
    return pd.DataFrame(
        {
            "image": table["image"],
            "source": table["image"],
            "file": table["file"],
            "label": table["wnid"].map(labels).astype("int64"),
            "class_name": table["wnid"].map(lambda wnid: names.get(wnid, wnid)),
            "attribute": np.int64(-1),
            "official": table["official"],
        }
    )


def _find_folder(config: Config, raw: Path) -> Path:
    """Return raw/tiny-imagenet-200: a link to the user's folder, or the unpacked archive, downloaded if missing."""
    root, folder = config.root or os.environ.get(VARIABLE, ""), raw / FOLDER
    if root:
        set_link(_check_folder(Path(root).expanduser().resolve()), folder)
    elif not folder.is_dir():
        unpack(fetch_file(REMOTE, raw), FOLDER)
    return _check_folder(folder)


def _check_folder(folder: Path) -> Path:
    """Return `folder`. Raises Refused if it lacks a file or folder of the official layout."""
    required = ("wnids.txt", "words.txt", "train", "val/images", "val/val_annotations.txt")
    if missing := [name for name in required if not (folder / name).exists()]:
        raise Refused(
            f"source tiny_imagenet: no {' and no '.join(missing)} in {folder}; root (or {VARIABLE}) must name the "
            f"folder {FOLDER} as its archive has it, or be left empty to fetch {REMOTE.url}"
        )
    return folder


def _read_wnids(folder: Path) -> list[str]:
    """Return the sorted WordNet ids of wnids.txt. Raises Refused if one occurs twice, or if train has other classes."""
    wnids = sorted((folder / "wnids.txt").read_text("utf-8-sig").split())
    if twice := sorted({wnid for wnid in wnids if wnids.count(wnid) > 1}):
        raise Refused(f"source tiny_imagenet: {folder}/wnids.txt lists classes twice: {image_lists.join_first(twice)}")
    folders = {entry.name for entry in os.scandir(folder / "train") if entry.is_dir()}
    if unlisted := sorted(folders - set(wnids)):
        raise Refused(
            f"source tiny_imagenet: {folder}: wnids.txt does not list classes of train: "
            f"{image_lists.join_first(unlisted)}"
        )
    return wnids


def _list_train(folder: Path, wnids: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield official split, image, WordNet id and file of the training images, class by class."""
    for wnid in wnids:
        images = folder / "train" / wnid / "images"
        files = sorted(_image_names(images), key=_number_key) if images.is_dir() else []
        if not files:
            raise Refused(f"source tiny_imagenet: class {wnid} has no image in {images}")
        for file in files:
            yield "train", file.removesuffix(".JPEG"), wnid, f"{FOLDER}/train/{wnid}/images/{file}"


def _image_names(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.name.endswith(".JPEG")]


def _number_key(file: str) -> tuple[int, str]:
    """Return a sort key by the number in the name: n01443537_10.JPEG comes after n01443537_9.JPEG."""
    digits = file.removesuffix(".JPEG").rpartition("_")[2]
    return (int(digits) if digits.isdigit() else -1), file


def _list_val(folder: Path, wnids: Collection[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield official split, image, WordNet id and file of the val images, in the order of their annotations.

    Every line is "file<tab>class<tab>box". Raises Refused if a line is wrong or an image has none.
    """
    files, known, classes = set(_image_names(folder / "val/images")), set(wnids), dict[str, str]()
    problems = []
    for number, line in enumerate((folder / "val/val_annotations.txt").read_text("utf-8-sig").splitlines(), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if problem := _find_problem(file, wnid, files, known, classes):
            problems.append(f"line {number}: {problem}")
        elif line.strip():
            classes[file] = wnid
    # a wrong line leaves its image without one: report missing lines only if all lines are right
    problems += [f"no line of image {file}" for file in sorted(files - set(classes), key=_number_key) if not problems]
    if problems:
        shown = "\n  ".join(problems[: image_lists.SHOWN])
        raise Refused(f"source tiny_imagenet: {folder}/val/val_annotations.txt, {len(problems)} problems:\n  {shown}")
    for file, wnid in classes.items():
        yield "val", file.removesuffix(".JPEG"), wnid, f"{FOLDER}/val/images/{file}"


def _find_problem(file: str, wnid: str, files: Collection[str], known: Collection[str], listed: Collection[str]) -> str:
    """Return what is wrong with a line, or ""; an empty line is allowed."""
    if not wnid:
        return f"{file!r} is not a file and a class, with a tab between them" if file.strip() else ""
    if wnid not in known:
        return f"{file} is of class {wnid}, which wnids.txt does not list"
    if file not in files:
        return f"no image {file} in val/images"
    return f"{file} is listed twice" if file in listed else ""


def _read_class_names(folder: Path) -> dict[str, str]:
    """Return WordNet id -> class name with all its synonyms, because the first synonym alone is not unique."""
    lines = (folder / "words.txt").read_text("utf-8-sig").splitlines()
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the images of `files`, uint8, N x size x size x 3; see ltpipe.data.decode."""
    return decode([raw / file for file in files], size)
