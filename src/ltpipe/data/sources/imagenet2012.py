"""ILSVRC 2012 from the user's own folder (its terms allow no download by a program): all of it, or ImageNet-LT.

Class 0 .. 999 is the rank of the class's WordNet id in sorted order (torchvision's and ImageNet-LT's numbering).
`lists: imagenet_lt` takes the official lists of Liu et al. (CVPR 2019): official train and val are drawn from ILSVRC
train, official test is ILSVRC val.

The val images may lie in class folders, or flat with one of ILSVRC2012_devkit_t12/data (ground truth and meta.mat)
and LOC_val_solution.csv beside them.

    files that are no *.JPEG            not looked at
    links to files and folders          followed; one that leads nowhere is refused by the gate of the data, or, where
                                        it is listed, here
    an image that cannot be decoded     Refused when images are packed, all of a piece at once (ltpipe.data.decode);
                                        none is left out, because the sizes are published: unpack its archive again.
                                        (One image is a PNG named .JPEG, some are CMYK: they decode)
"""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.acquire import image_lists
from ltpipe.data.acquire.local_folder import Dataset, place
from ltpipe.data.decode import decode
from ltpipe.storage.table import Table

NOTICE = """ImageNet ILSVRC 2012 (Russakovsky et al., IJCV 2015), https://image-net.org/download: terms of access:
non-commercial research and education; the pictures belong to their owners and may not be passed on.
Lists of ImageNet-LT, where used: Liu et al., CVPR 2019, as in github.com/facebookresearch/classifier-balancing.
"""

DEVKIT = "ILSVRC2012_devkit_t12/data"
SOLUTION = "LOC_val_solution.csv"
NAMES = "LOC_synset_mapping.txt"

DATASET = Dataset(
    source="imagenet2012",
    variable="LTPIPE_IMAGENET2012",
    entries=("train", "val"),
    optional=("ILSVRC2012_devkit_t12", SOLUTION, NAMES),
    obtain=f"""
    get ILSVRC2012_img_train.tar (138 GB) and ILSVRC2012_img_val.tar (6.3 GB)
    from https://image-net.org/download (registration), or Kaggle, "ImageNet Object Localization Challenge"
    terms: non-commercial research and education, not to be passed on
    layout: train/<wnid>/*.JPEG (the archive of archives, unpacked twice), and
    val/<wnid>/*.JPEG, or val/*.JPEG with {DEVKIT} or {SOLUTION} beside it;
    optional: {NAMES} (names of the classes)
    """,
)

CLASSES = 1000
LISTS = {
    "train": image_lists.official("ImageNet_LT", "ImageNet_LT_train.txt", "a063f095fcd475db4cf8b0658c4b73955535bbf9"),
    "val": image_lists.official("ImageNet_LT", "ImageNet_LT_val.txt", "3ed3188b2f44829ce2dec1cc27040d8d40984088"),
    "test": image_lists.official("ImageNet_LT", "ImageNet_LT_test.txt", "76a2fb9749d6cd29e765cc4f8c270f2504131e2f"),
}


class Config(Spec):
    """Where the images are, and which of them."""

    root: str = Field("", description="folder with train and val; default: env LTPIPE_IMAGENET2012, or the raw folder")
    lists: Literal["none", "imagenet_lt"] = "none"


def build_index(config: Config, raw: Path) -> Table:
    """Index of ILSVRC 2012 (1,331,167 images) or of ImageNet-LT (185,846)."""
    import pandas as pd

    place(DATASET, config.root, raw)
    wnids = sorted(entry.name for entry in os.scandir(raw / "train") if entry.is_dir())
    if len(wnids) != CLASSES:
        raise DATASET.refuse(f"{len(wnids)} class folders in {raw / 'train'}, not {CLASSES}")
    rows = list(_listed(raw) if config.lists == "imagenet_lt" else _all(raw, wnids))
    table = pd.DataFrame(rows, columns=["official", "label", "file"])
    image = table["file"].str.rsplit("/", n=1).str[-1].str.removesuffix(".JPEG")
    names = _names(raw, wnids)
    return pd.DataFrame(
        {
            "image": image,
            "source": image,
            "file": table["file"],
            "label": table["label"].astype("int64"),
            "class_name": table["label"].map(lambda label: names[label]),
            "attribute": np.int64(-1),
            "official": table["official"],
        }
    )


def _all(raw: Path, wnids: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    for label, wnid in enumerate(wnids):
        files = sorted(entry.name for entry in os.scandir(raw / "train" / wnid) if entry.name.endswith(".JPEG"))
        if not files:
            raise DATASET.refuse(f"no image (*.JPEG) in {raw / 'train' / wnid}")
        yield from (("train", label, f"train/{wnid}/{file}") for file in files)
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    for file, wnid in _val(raw).items():
        if wnid not in labels:
            raise Refused(f"source imagenet2012: {file} is of class {wnid}, which train has not")
        yield "val", labels[wnid], file


def _listed(raw: Path) -> Iterator[tuple[str, int, str]]:
    """The lists' images; ILSVRC val images are where they lie here, flat or in class folders."""
    flat = _is_flat(raw)
    for split, entries in image_lists.load(LISTS, raw, CLASSES).items():
        files = [_flattened(entry.file) if flat else entry.file for entry in entries]
        image_lists.present(files, raw, f"source imagenet2012, list {LISTS[split].name}")
        yield from ((split, entry.label, file) for entry, file in zip(entries, files, strict=True))


def _flattened(file: str) -> str:
    return f"val/{file.rsplit('/', 1)[-1]}" if file.startswith("val/") else file


def _is_flat(raw: Path) -> bool:
    return any(entry.name.endswith(".JPEG") for entry in os.scandir(raw / "val"))


def _val(raw: Path) -> dict[str, str]:
    """File -> WordNet id of each ILSVRC val image, in the order of the file names."""
    if not _is_flat(raw):
        found = {f"val/{p.parent.name}/{p.name}": p.parent.name for p in (raw / "val").glob("*/*.JPEG")}
        return dict(sorted(found.items(), key=lambda item: item[0].rsplit("/", 1)[-1]))
    known = _solution(raw / SOLUTION) if (raw / SOLUTION).exists() else _ground_truth(raw / DEVKIT)
    files = sorted(entry.name for entry in os.scandir(raw / "val") if entry.name.endswith(".JPEG"))
    if unknown := [file for file in files if file.removesuffix(".JPEG") not in known]:
        raise DATASET.refuse(f"no label of {len(unknown)} images in {raw / 'val'}, e.g. {', '.join(unknown[:10])}")
    return {f"val/{file}": known[file.removesuffix(".JPEG")] for file in files}


def _solution(path: Path) -> dict[str, str]:
    """Image -> WordNet id, from Kaggle's table of boxes."""
    try:
        with path.open(newline="") as file:
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    except (KeyError, IndexError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise DATASET.refuse(f"{path} is not Kaggle's table ({type(error).__name__}: {error})") from None


def _ground_truth(devkit: Path) -> dict[str, str]:
    """Image -> WordNet id, from the development kit: a number a line, and the table of numbers in meta.mat."""
    truth, meta = devkit / "ILSVRC2012_validation_ground_truth.txt", devkit / "meta.mat"
    if not (truth.exists() and meta.exists()):
        raise DATASET.refuse(
            f"val is flat, and neither {DEVKIT} with {truth.name} and {meta.name} nor {SOLUTION} is there"
        )
    try:
        wnid = _wnid_of_number(meta)
        numbers = truth.read_text().split()
        return {f"ILSVRC2012_val_{i:08d}": wnid[int(number)] for i, number in enumerate(numbers, start=1)}
    except Exception as error:  # noqa: BLE001 - scipy raises whatever its parser does
        raise DATASET.refuse(f"{devkit} is not the development kit ({type(error).__name__}: {error})") from None


def _wnid_of_number(meta: Path) -> Mapping[int, str]:
    from scipy.io import loadmat  # type: ignore[import-untyped]

    synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
    return {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}


def _names(raw: Path, wnids: Sequence[str]) -> list[str]:
    """Name of each class: its synonyms where NAMES is there, else the WordNet id."""
    path = raw / NAMES
    lines = path.read_text().splitlines() if path.exists() else []
    known = dict(line.split(" ", 1) for line in lines if " " in line)
    return [known.get(wnid, wnid) for wnid in wnids]


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """The images of `files` at `size`; see ltpipe.data.decode."""
    return decode([raw / file for file in files], size)
