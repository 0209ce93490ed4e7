"""ILSVRC 2012 from the user's own folder (its terms do not allow download by a program): all of it, or ImageNet-LT.

Classes are numbered 0 .. 999 in the sorted order of their WordNet ids, as in torchvision and ImageNet-LT.
`lists: imagenet_lt` selects the images of the official lists of Liu et al. (CVPR 2019): official train and val are
drawn from ILSVRC train, official test is ILSVRC val.

The val images may lie in class folders, or all in the folder val. In the second case their labels come from one of
ILSVRC2012_devkit_t12/data (ground truth and meta.mat) and LOC_val_solution.csv, beside val.

    files not named *.JPEG              ignored
    links to files and folders          followed; a broken link is refused by the checks of the data, or here if it is
                                        in a list
    an image that cannot be decoded     Refused when images are packed, with all such files in one message
                                        (ltpipe.data.decode). None is left out, because the sizes are published: unpack
                                        its archive again. (One image is a PNG named .JPEG, some are CMYK: they decode)
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
from ltpipe.data.acquire.local_folder import Dataset, link_dataset
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
    optional: {NAMES} (names of the classes, which the data's id sees)
    """,
)

CLASSES = 1000
LISTS = {
    "train": image_lists.official_list(
        "ImageNet_LT", "ImageNet_LT_train.txt", "a063f095fcd475db4cf8b0658c4b73955535bbf9"
    ),
    "val": image_lists.official_list("ImageNet_LT", "ImageNet_LT_val.txt", "3ed3188b2f44829ce2dec1cc27040d8d40984088"),
    "test": image_lists.official_list(
        "ImageNet_LT", "ImageNet_LT_test.txt", "76a2fb9749d6cd29e765cc4f8c270f2504131e2f"
    ),
}


class Config(Spec):
    """Where the images are, and which of them to use."""

    root: str = Field("", description="folder with train and val; default: env LTPIPE_IMAGENET2012, or the raw folder")
    lists: Literal["none", "imagenet_lt"] = Field(
        "none", description="none: all images of ILSVRC 2012; imagenet_lt: those of the lists of ImageNet-LT"
    )


def build_index(config: Config, raw: Path) -> Table:
    """Return the index of ILSVRC 2012 (1,331,167 images) or of ImageNet-LT (185,846)."""
    import pandas as pd

    link_dataset(DATASET, config.root, raw)
    wnids = sorted(entry.name for entry in os.scandir(raw / "train") if entry.is_dir())
    if len(wnids) != CLASSES:
        raise DATASET.refusal(f"{len(wnids)} class folders in {raw / 'train'}, not {CLASSES}")
    rows = list(_list_lt_images(raw) if config.lists == "imagenet_lt" else _list_all_images(raw, wnids))
    table = pd.DataFrame(rows, columns=["official", "label", "file"])
    image = table["file"].str.rsplit("/", n=1).str[-1].str.removesuffix(".JPEG")
    names = _read_class_names(raw, wnids)
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


def _list_all_images(raw: Path, wnids: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """Yield official split, label and file of every image: train by class, then val."""
    for label, wnid in enumerate(wnids):
        files = sorted(entry.name for entry in os.scandir(raw / "train" / wnid) if entry.name.endswith(".JPEG"))
        if not files:
            raise DATASET.refusal(f"no image (*.JPEG) in {raw / 'train' / wnid}")
        yield from (("train", label, f"train/{wnid}/{file}") for file in files)
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    for file, wnid in _find_val_wnids(raw).items():
        if wnid not in labels:
            raise Refused(f"source imagenet2012: {file} is of class {wnid}, which train lacks")
        yield "val", labels[wnid], file


def _list_lt_images(raw: Path) -> Iterator[tuple[str, int, str]]:
    """Yield official split, label and file of every image of the lists.

    The lists name val images in class folders; if the user's val has none, these paths are changed accordingly.
    """
    flat = _is_flat(raw)
    for split, entries in image_lists.load_lists(LISTS, raw, CLASSES).items():
        files = [_flatten_val(entry.file) if flat else entry.file for entry in entries]
        image_lists.require_files(files, raw, f"source imagenet2012, list {LISTS[split].name}")
        yield from ((split, entry.label, file) for entry, file in zip(entries, files, strict=True))


def _flatten_val(file: str) -> str:
    """Return the path of a val image without its class folder; return other paths unchanged."""
    return f"val/{file.rsplit('/', 1)[-1]}" if file.startswith("val/") else file


def _is_flat(raw: Path) -> bool:
    """Tell whether the folder val itself holds images."""
    return any(entry.name.endswith(".JPEG") for entry in os.scandir(raw / "val"))


def _find_val_wnids(raw: Path) -> dict[str, str]:
    """Return file -> WordNet id of all ILSVRC val images, in the order of the file names."""
    if not _is_flat(raw):
        wnids = {f"val/{p.parent.name}/{p.name}": p.parent.name for p in (raw / "val").glob("*/*.JPEG")}
        # by name without the class folder, so that both layouts give the same order
        return dict(sorted(wnids.items(), key=lambda item: item[0].rsplit("/", 1)[-1]))
    wnids = _read_solution(raw / SOLUTION) if (raw / SOLUTION).exists() else _read_ground_truth(raw / DEVKIT)
    files = sorted(entry.name for entry in os.scandir(raw / "val") if entry.name.endswith(".JPEG"))
    if unknown := [file for file in files if file.removesuffix(".JPEG") not in wnids]:
        raise DATASET.refusal(f"no label of {len(unknown)} images in {raw / 'val'}, e.g. {', '.join(unknown[:10])}")
    return {f"val/{file}": wnids[file.removesuffix(".JPEG")] for file in files}


def _read_solution(path: Path) -> dict[str, str]:
    """Return image -> WordNet id, from Kaggle's table of boxes."""
    try:
        # PredictionString: "<wnid> left top right bottom" once per box; the first box gives the class
        with path.open(newline="") as file:
            return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
    except (KeyError, IndexError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise DATASET.refusal(f"{path} is not Kaggle's table ({type(error).__name__}: {error})") from None


def _read_ground_truth(devkit: Path) -> dict[str, str]:
    """Return image -> WordNet id, from the development kit: one class number per line, explained in meta.mat."""
    truth, meta = devkit / "ILSVRC2012_validation_ground_truth.txt", devkit / "meta.mat"
    if not (truth.exists() and meta.exists()):
        raise DATASET.refusal(
            f"val is flat, and neither {DEVKIT} with {truth.name} and {meta.name} nor {SOLUTION} is there"
        )
    try:
        wnid = _read_synsets(meta)
        numbers = truth.read_text().split()
        return {f"ILSVRC2012_val_{i:08d}": wnid[int(number)] for i, number in enumerate(numbers, start=1)}
    except Exception as error:  # noqa: BLE001 - scipy raises whatever its parser does
        raise DATASET.refusal(f"{devkit} is not the development kit ({type(error).__name__}: {error})") from None


def _read_synsets(meta: Path) -> Mapping[int, str]:
    """Return the kit's class number -> WordNet id."""
    from scipy.io import loadmat  # type: ignore[import-untyped]

    synsets = loadmat(str(meta), squeeze_me=True)["synsets"]
    return {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}


def _read_class_names(raw: Path, wnids: Sequence[str]) -> list[str]:
    """Return the name of each class: its synonyms if the file NAMES has them, else the WordNet id."""
    path = raw / NAMES
    lines = path.read_text().splitlines() if path.exists() else []
    names = dict(line.split(" ", 1) for line in lines if " " in line)
    return [names.get(wnid, wnid) for wnid in wnids]


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the images of `files`, uint8, N x size x size x 3; see ltpipe.data.decode."""
    return decode([raw / file for file in files], size)
