"""What a folder or a table of pictures holds, as the source image_folder reads it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.data.acquire.content import content_digests
from ltpipe.data.decode import Picture, picture_sizes
from ltpipe.data.sources import image_folder
from ltpipe.storage.table import Table

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Survey:
    """The pictures that can be used, N, and those that are left out.

    index: as ltpipe.data.fetch has it. folder: its column `image` is below it. sizes: width and height, N x 2.
    endings: of file names, with their number. broken: path -> reason. equal: path -> the kept file of equal content.
    contents: path -> digest.
    """

    index: Table
    folder: Path
    sizes: np.ndarray
    endings: Mapping[str, int]
    broken: Mapping[str, str]
    equal: Mapping[str, str]
    contents: Mapping[str, str]

    def names(self) -> list[str]:
        """Return the class names in the order of their labels, C."""
        first = self.index.drop_duplicates("label").sort_values("label")
        return [str(name) for name in first["class_name"]]

    def paths(self, rows: np.ndarray | None = None) -> list[Path]:
        """Return the files of the index's rows; default: of all."""
        images = self.index["image"].to_numpy()
        return [self.folder / image for image in (images if rows is None else images[rows])]


def look(root: Path, raw: Path) -> Survey:
    """Return what `root` holds. raw: the source's folder, which keeps digests of contents.

    Raises Refused as the source does, or if there is one class only.
    """
    config = image_folder.Config(root=str(root), broken="exclude", duplicates="exclude")
    index = image_folder.build_index(config, raw)
    if index["label"].nunique() < 2:
        raise Refused(f"{root} holds one class, {index['class_name'].iloc[0]}; a classifier needs two")
    folder = root.parent if root.is_file() else root
    images = index["image"].tolist()
    left_out, equal = index.attrs["left_out"], index.attrs["equal"]
    return Survey(
        index,
        folder,
        picture_sizes([Picture(folder / image) for image in images]),
        dict(Counter(Path(image).suffix.lower() or "none" for image in images).most_common()),
        {path: reason for path, reason in left_out.items() if path not in equal},
        equal,
        dict(zip(images, content_digests(folder, images, raw), strict=True)),
    )


def require_enough(survey: Survey) -> None:
    """Raise Refused if a class has too few pictures for a training, a validation and a test split.

    Where the pictures come without splits, a class needs three. Where they come with some, it needs one in train, and
    two if val has to be cut from there.
    """
    official = survey.index["official"]
    train = survey.index[official == "train"] if (official != "").all() else survey.index
    least = 3 if not (official != "").all() else 1 if (official == "val").any() else 2
    counts = np.bincount(train["label"], minlength=len(survey.names()))
    short = [f"{name} ({n})" for name, n in zip(survey.names(), counts, strict=True) if n < least]
    if short:
        where = "" if least == 3 else " in train"
        raise Refused(f"a class needs {least} pictures{where}, and these have fewer: {', '.join(short)}")


def count_splits(manifest: Table, classes: int) -> dict[str, list[int]]:
    """Return split -> pictures of class 0, 1, ...; manifest: as a split kind draws it."""
    labels = {split: manifest.loc[manifest["split"] == split, "label"] for split in SPLITS}
    return {split: np.bincount(values, minlength=classes).tolist() for split, values in labels.items()}
