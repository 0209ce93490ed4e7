"""MSCOCO-GLT's patches (Tang et al., ECCV 2022): objects of COCO 2014 that COCO Attributes describes, cut out at read.

188,426 objects of 29 classes, of COCO's train and val images alike. Class 0 is the largest; classes of equal size are
ordered by name (the authors' order of those is that of a Python set). A patch is the object's box, enlarged by 50
pixels a side where the side is shorter than 100 and by 20 % elsewhere, clipped to the photograph and padded with
black to a square. The authors save the patches as JPEG first; here they go to `size` directly. A photograph that
cannot be decoded is refused when its patches are packed, and named; none is left out.

An object has any of 204 attributes, so the index's column `attribute` is -1; `index.attrs` holds them:
    attribute_names     204 names
    attribute_bits      base64 of np.packbits(positive, axis=1): a row an object, in the index's order
    (positive: score > 0.5)
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.acquire import image_lists, joblib_reader
from ltpipe.data.acquire.download import Remote, get
from ltpipe.data.acquire.local_folder import Dataset, place
from ltpipe.data.acquire.unpack import unpack
from ltpipe.data.decode import decode
from ltpipe.storage.atomic import write
from ltpipe.storage.table import Table

if TYPE_CHECKING:
    from PIL.Image import Image

NOTICE = """COCO 2014 (Lin et al., ECCV 2014), https://cocodataset.org: annotations CC BY 4.0; the photographs are under
Flickr's terms and their authors' licences. COCO Attributes (Patterson and Hays, ECCV 2016). Which of them form
MSCOCO-GLT: Tang et al., ECCV 2022, github.com/KaihuaTang/Generalized-Long-Tailed-Benchmarks.pytorch.
"""

DATASET = Dataset(
    source="mscoco_glt",
    variable="LTPIPE_COCO2014",
    entries=("train2014", "val2014"),
    optional=("annotations",),
    # sizes as in the checksum file that TensorFlow Datasets keeps of COCO 2014
    obtain="""
    get train2014.zip (13.5 GB) and val2014.zip (6.6 GB)
    from https://cocodataset.org/#download (no registration)
    terms: annotations CC BY 4.0; photographs under Flickr's terms, each with its own licence
    layout: train2014/*.jpg and val2014/*.jpg; the annotations (253 MB) and COCO Attributes are fetched, the first
    not where annotations/instances_train2014.json and instances_val2014.json are there
    """,
)

# checksum and size: TensorFlow Datasets' (the address is the dataset's own; its https has another host's certificate)
ANNOTATIONS = Remote(
    "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
    "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    252_872_794,
)

ATTRIBUTES = Remote(
    "https://raw.githubusercontent.com/KaihuaTang/Generalized-Long-Tailed-Benchmarks.pytorch/"
    "3a269974892ff327d5303a07249a4ce9b5e23222/_COCOGeneration/cocottributes_py3.jbl",
    "git:b5dbaa679ebacaa7f43a8159c6fef522d9b3ecfe",
)
PATCHES = "patches.json"

Box = tuple[float, float, float, float]


class Config(Spec):
    """Where the photographs are, and what counts as one source."""

    root: str = Field("", description="folder with train2014 and val2014; default: env LTPIPE_COCO2014")
    source: Literal["photo", "patch"] = Field(
        "photo", description="photo: patches of one photograph stay in one role; patch: as the authors' splits"
    )


class Patch(NamedTuple):
    """One object: its key in COCO Attributes, photograph, box (left, top, width, height) and class name."""

    key: int
    file: str
    box: Box
    name: str


def build_index(config: Config, raw: Path) -> Table:
    """Index of 188,426 patches by key; `file` is the patch's row in raw/patches.json, which this writes."""
    import pandas as pd

    place(DATASET, config.root, raw)
    content = joblib_reader.load(get(ATTRIBUTES, raw))
    patches = _patches(content, _annotations(raw))
    image_lists.present(sorted({patch.file for patch in patches}), raw, f"source {DATASET.source}")
    write(raw / PATCHES, json.dumps([[patch.file, *patch.box] for patch in patches]).encode())
    names = pd.Series([patch.name for patch in patches])
    photos = [patch.file.rsplit("/", 1)[-1].removesuffix(".jpg") for patch in patches]
    images = [f"patch{patch.key:06d}" for patch in patches]
    table = pd.DataFrame(
        {
            "image": images,
            "source": photos if config.source == "photo" else images,
            "file": [str(row) for row in range(len(patches))],
            "label": names.map({name: label for label, name in enumerate(_by_size(names))}).astype("int64"),
            "class_name": names,
            "attribute": np.int64(-1),
            "official": [patch.file.split("2014/")[0] for patch in patches],
        }
    )
    table.attrs.update(_attributes(content, patches))
    return table


def _annotations(raw: Path) -> Path:
    """The folder of annotations: the user's, or the archive's."""
    folder = raw / "annotations"
    return folder if folder.is_dir() else unpack(get(ANNOTATIONS, raw), "annotations")


def _by_size(names: Any) -> list[str]:
    """Class names, the largest class first, ties by name."""
    sizes = names.value_counts()
    return sorted(sizes.index, key=lambda name: (-sizes[name], name))


def _attributes(content: dict[str, Any], patches: Sequence[Patch]) -> dict[str, Any]:
    scores = np.stack([content["ann_vecs"][patch.key] for patch in patches])
    details = sorted(content["attributes"], key=lambda detail: detail["id"])
    bits = np.packbits(scores > 0.5, axis=1)
    return {
        "attribute_names": [str(detail["name"]) for detail in details],
        "attribute_bits": base64.b64encode(bits.tobytes()).decode(),
    }


def _patches(content: dict[str, Any], folder: Path) -> list[Patch]:
    """The described objects, ordered by key."""
    if absent := {"ann_vecs", "patch_id_to_ann_id", "attributes"} - set(content):
        raise Refused(f"{ATTRIBUTES.name} lacks {', '.join(sorted(absent))}")
    wanted = {int(key): int(content["patch_id_to_ann_id"][key]) for key in content["ann_vecs"]}
    found: dict[int, tuple[str, Box, str]] = {}
    for part in ("train2014", "val2014"):
        found |= _objects(folder / f"instances_{part}.json", part, set(wanted.values()))
    if lost := sorted(set(wanted.values()) - set(found)):
        raise DATASET.refuse(f"{len(lost)} described objects are not in {folder}, e.g. annotation {lost[0]}")
    return [Patch(key, *found[annotation]) for key, annotation in sorted(wanted.items())]


def _objects(path: Path, part: str, wanted: set[int]) -> dict[int, tuple[str, Box, str]]:
    """Annotation -> photograph, box and class name, for the annotations that are wanted."""
    if not path.is_file():
        raise DATASET.refuse(f"no {path.name} in {path.parent}")
    content = json.loads(path.read_bytes())
    files = {image["id"]: f"{part}/{image['file_name']}" for image in content["images"]}
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    return {
        one["id"]: (files[one["image_id"]], tuple(one["bbox"]), names[one["category_id"]])
        for one in content["annotations"]
        if one["id"] in wanted
    }


def enlarged(box: Box, width: int, height: int) -> Box:
    """The box as corners, enlarged and clipped to a photograph of width x height."""
    left, right = _side(box[0], box[2], width)
    top, bottom = _side(box[1], box[3], height)
    return left, top, right, bottom


def _side(start: float, length: float, limit: int) -> tuple[float, float]:
    margin = 50 if length < 100 else 0.2 * length
    return max(start - margin, 0), min(start + length + margin, limit)


def cut(image: "Image", box: Box) -> "Image":
    """The patch, padded with black to a square (Pillow's crop rounds the corners, and pads outside the image)."""
    patch = image.crop(enlarged(box, *image.size))  # type: ignore[arg-type]
    pad = (patch.width - patch.height) / 2
    wide = (0, -pad, patch.width, patch.height + pad)
    high = (pad, 0, patch.width - pad, patch.height)
    return patch.crop(wide if pad > 0 else high)  # type: ignore[arg-type]


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """The patches at `size`, cut out of their photographs."""
    path = raw / PATCHES
    if not path.exists():
        raise Refused(f"no {path}: fetch the source again")
    rows = json.loads(path.read_bytes())
    chosen = [rows[int(file)] for file in files]
    return decode([raw / row[0] for row in chosen], size, lambda image, i: cut(image, tuple(chosen[i][1:])))
