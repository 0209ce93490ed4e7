"""Tiny ImageNet: 200 classes, 500 training and 50 val images each, 64 x 64, in the official layout.

Class 0 .. 199 is the rank of the class's WordNet id in sorted order, as torchvision's ImageFolder and the published
code on this set have it (wnids.txt is in another order). The label of a val image is what val_annotations.txt says:
the val images lie in one folder. The test images have no labels and are left out.

    CRLF line ends, empty lines         allowed in every text file
    files that are no *.JPEG            not looked at
    a class that wnids.txt lists twice, or that has no image, or a folder of a class that it does not list; a line of
    val_annotations.txt without file and class, of a class that is not listed, of a file that is not there or listed
    already; a val image without a line
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
from ltpipe.data.acquire.download import Remote, get
from ltpipe.data.acquire.local_folder import link
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
    """Where the images are, if not to be fetched."""

    root: str = Field(
        "", description="the unpacked folder tiny-imagenet-200; default: env LTPIPE_TINY_IMAGENET, or none"
    )


def build_index(config: Config, raw: Path) -> Table:
    """Index of 110,000 images, train then val; the archive (248 MB) is fetched unless a folder is named."""
    import pandas as pd

    folder = _folder(config, raw)
    wnids = _wnids(folder)
    rows = [*_train(folder, wnids), *_val(folder, wnids)]
    table = pd.DataFrame(rows, columns=["official", "image", "wnid", "file"])
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    names = _names(folder)
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


def _folder(config: Config, raw: Path) -> Path:
    root, folder = config.root or os.environ.get(VARIABLE, ""), raw / FOLDER
    if root:
        link(_complete(Path(root).expanduser().resolve()), folder)
    elif not folder.is_dir():
        unpack(get(REMOTE, raw), FOLDER)
    return _complete(folder)


def _complete(folder: Path) -> Path:
    wanted = ("wnids.txt", "words.txt", "train", "val/images", "val/val_annotations.txt")
    if absent := [name for name in wanted if not (folder / name).exists()]:
        raise Refused(
            f"source tiny_imagenet: no {' and no '.join(absent)} in {folder}; root (or {VARIABLE}) must name the "
            f"folder {FOLDER} as its archive has it, or be left empty to fetch {REMOTE.url}"
        )
    return folder


def _wnids(folder: Path) -> list[str]:
    """The classes, sorted; each has a folder of images, and no other folder is there."""
    wnids = sorted((folder / "wnids.txt").read_text("utf-8-sig").split())
    if twice := sorted({one for one in wnids if wnids.count(one) > 1}):
        raise Refused(f"source tiny_imagenet: {folder}/wnids.txt lists twice: {image_lists.first(twice)}")
    folders = {entry.name for entry in os.scandir(folder / "train") if entry.is_dir()}
    if strange := sorted(folders - set(wnids)):
        raise Refused(
            f"source tiny_imagenet: {folder}: wnids.txt does not list classes of train: {image_lists.first(strange)}"
        )
    return wnids


def _train(folder: Path, wnids: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    for wnid in wnids:
        images = folder / "train" / wnid / "images"
        files = sorted(_images(images), key=_number) if images.is_dir() else []
        if not files:
            raise Refused(f"source tiny_imagenet: class {wnid} has no image in {images}")
        for file in files:
            yield "train", file.removesuffix(".JPEG"), wnid, f"{FOLDER}/train/{wnid}/images/{file}"


def _images(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.name.endswith(".JPEG")]


def _number(file: str) -> tuple[int, str]:
    """n01443537_10.JPEG comes after n01443537_9.JPEG."""
    digits = file.removesuffix(".JPEG").rpartition("_")[2]
    return (int(digits) if digits.isdigit() else -1), file


def _val(folder: Path, wnids: Collection[str]) -> Iterator[tuple[str, str, str, str]]:
    """The val images in the order of their annotations, "file<tab>class<tab>box" a line."""
    there, known, found = set(_images(folder / "val/images")), set(wnids), dict[str, str]()
    problems = []
    for number, line in enumerate((folder / "val/val_annotations.txt").read_text("utf-8-sig").splitlines(), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0].strip()
        if problem := _problem(file, wnid, there, known, found):
            problems.append(f"line {number}: {problem}")
        elif line.strip():
            found[file] = wnid
    problems += [f"no line of image {file}" for file in sorted(there - set(found), key=_number) if not problems]
    if problems:
        shown = "\n  ".join(problems[: image_lists.SHOWN])
        raise Refused(f"source tiny_imagenet: {folder}/val/val_annotations.txt, {len(problems)} problems:\n  {shown}")
    for file, wnid in found.items():
        yield "val", file.removesuffix(".JPEG"), wnid, f"{FOLDER}/val/images/{file}"


def _problem(file: str, wnid: str, there: Collection[str], known: Collection[str], before: Collection[str]) -> str:
    if not wnid:
        return f"{file!r} is not a file and a class, with a tab between them" if file.strip() else ""
    if wnid not in known:
        return f"{file} is of class {wnid}, which wnids.txt does not list"
    if file not in there:
        return f"no image {file} in val/images"
    return f"{file} is listed twice" if file in before else ""


def _names(folder: Path) -> dict[str, str]:
    """Class names by WordNet id: all synonyms, because the first alone is not unique."""
    lines = (folder / "words.txt").read_text("utf-8-sig").splitlines()
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """The images of `files` at `size`; see ltpipe.data.decode."""
    return decode([raw / file for file in files], size)
