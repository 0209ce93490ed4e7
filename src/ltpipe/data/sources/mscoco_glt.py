"""MSCOCO-GLT (Tang et al., ECCV 2022): objects that COCO Attributes describes, cut out of COCO 2014's photographs.

188,426 objects of 29 classes, from both train and val images of COCO. Class 0 is the largest; classes of equal size
are ordered by name (in the authors' code, by the order of a Python set). A patch is the object's box, enlarged at each
end of a side by 50 pixels if the side is shorter than 100 pixels, else by 20 % of the side, then clipped to the
photograph and padded with black to a square. The authors save the patches as JPEG files first; here they are resized
to `size` directly. A photograph that cannot be decoded is refused, with its name, when its patches are packed; none is
left out.

An object may have any number of 204 attributes, so the index's column `attribute` is -1; `index.attrs` holds them:
    attribute_names     204 names
    attribute_bits      base64 of np.packbits(positive, axis=1): one row per object, in the index's order
    (positive: score > 0.5)
"""

import base64
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.acquire import image_lists, joblib_reader
from ltpipe.data.acquire.download import Remote, fetch_file
from ltpipe.data.acquire.local_folder import Dataset, link_dataset
from ltpipe.data.acquire.unpack import unpack
from ltpipe.data.decode import Picture, decode
from ltpipe.storage.atomic import write_atomically
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

# Checksum and size are those of TensorFlow Datasets. The address is the official one, and not https: its certificate is
# for another host.
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
    """Where the photographs are, and which patches must stay together."""

    root: str = Field("", description="folder with train2014 and val2014; default: env LTPIPE_COCO2014")
    source: Literal["photo", "patch"] = Field(
        "photo",
        description="photo: patches of one photograph stay in one role; patch: they may be in several roles, as in the "
        "authors' splits",
    )


class Patch(NamedTuple):
    """One object: key in COCO Attributes, file of the photograph, box (left, top, width, height), class name."""

    key: int
    file: str
    box: Box
    name: str


def build_index(config: Config, raw: Path) -> Table:
    """Return the index of 188,426 patches, ordered by key.

    Writes raw/patches.json, the photograph and the box of every patch; `file` is the patch's row in it.
    """
    import pandas as pd

    link_dataset(DATASET, config.root, raw)
    content = joblib_reader.load_joblib(fetch_file(ATTRIBUTES, raw))
    patches = _list_patches(content, _find_annotations(raw))
    image_lists.require_files(sorted({patch.file for patch in patches}), raw, f"source {DATASET.source}")
    write_atomically(raw / PATCHES, json.dumps([[patch.file, *patch.box] for patch in patches]).encode())
    names = pd.Series([patch.name for patch in patches])
    photos = [patch.file.rsplit("/", 1)[-1].removesuffix(".jpg") for patch in patches]
    images = [f"patch{patch.key:06d}" for patch in patches]
    table = pd.DataFrame(
        {
            "image": images,
            "source": photos if config.source == "photo" else images,
            "file": [str(row) for row in range(len(patches))],
            "label": names.map({name: label for label, name in enumerate(_order_by_size(names))}).astype("int64"),
            "class_name": names,
            "attribute": np.int64(-1),
            "official": [patch.file.split("2014/")[0] for patch in patches],
        }
    )
    table.attrs.update(_pack_attributes(content, patches))
    return table


def _find_annotations(raw: Path) -> Path:
    """Return the folder of annotations: the user's, or else that of the archive, downloaded if missing."""
    folder = raw / "annotations"
    return folder if folder.is_dir() else unpack(fetch_file(ANNOTATIONS, raw), "annotations")


def _order_by_size(names: Any) -> list[str]:
    """Return the class names, the largest class first, classes of equal size by name. names: one per patch."""
    sizes = names.value_counts()
    return sorted(sizes.index, key=lambda name: (-sizes[name], name))


def _pack_attributes(content: dict[str, Any], patches: Sequence[Patch]) -> dict[str, Any]:
    """Return the index's attrs (see the module's docstring)."""
    # N x 204
    scores = np.stack([content["ann_vecs"][patch.key] for patch in patches])
    details = sorted(content["attributes"], key=lambda detail: detail["id"])
    bits = np.packbits(scores > 0.5, axis=1)
    return {
        "attribute_names": [str(detail["name"]) for detail in details],
        "attribute_bits": base64.b64encode(bits.tobytes()).decode(),
    }


def _list_patches(content: dict[str, Any], folder: Path) -> list[Patch]:
    """Return the objects that COCO Attributes describes, ordered by key.

    content: the loaded file of COCO Attributes. folder: COCO's annotations.
    """
    if missing := {"ann_vecs", "patch_id_to_ann_id", "attributes"} - set(content):
        raise Refused(f"{ATTRIBUTES.name} lacks {', '.join(sorted(missing))}")
    annotations = {int(key): int(content["patch_id_to_ann_id"][key]) for key in content["ann_vecs"]}
    objects: dict[int, tuple[str, Box, str]] = {}
    for part in ("train2014", "val2014"):
        objects |= _read_objects(folder / f"instances_{part}.json", part, set(annotations.values()))
    if missing_ids := sorted(set(annotations.values()) - set(objects)):
        raise DATASET.refusal(
            f"{len(missing_ids)} described objects are not in {folder}, e.g. annotation {missing_ids[0]}"
        )
    return [Patch(key, *objects[annotation]) for key, annotation in sorted(annotations.items())]


def _read_objects(path: Path, part: str, wanted: set[int]) -> dict[int, tuple[str, Box, str]]:
    """Return annotation id -> photograph, box and class name, for the ids in `wanted`."""
    if not path.is_file():
        raise DATASET.refusal(f"no {path.name} in {path.parent}")
    content = json.loads(path.read_bytes())
    files = {image["id"]: f"{part}/{image['file_name']}" for image in content["images"]}
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    return {
        note["id"]: (files[note["image_id"]], tuple(note["bbox"]), names[note["category_id"]])
        for note in content["annotations"]
        if note["id"] in wanted
    }


def enlarge_box(box: Box, width: int, height: int) -> Box:
    """Return the corners (left, top, right, bottom) of the box, enlarged and clipped to a photograph width x height."""
    left, right = _enlarge_side(box[0], box[2], width)
    top, bottom = _enlarge_side(box[1], box[3], height)
    return left, top, right, bottom


def _enlarge_side(start: float, length: float, limit: int) -> tuple[float, float]:
    margin = 50 if length < 100 else 0.2 * length
    return max(start - margin, 0), min(start + length + margin, limit)


def cut_patch(image: "Image", box: Box) -> "Image":
    """Return the patch of a box, padded with black to a square."""
    # Pillow's crop rounds the corners, and fills what lies outside of the image with black
    patch = image.crop(enlarge_box(box, *image.size))  # type: ignore[arg-type]
    pad = (patch.width - patch.height) / 2
    # the second crop extends the shorter side by `pad` at both ends
    wide = (0, -pad, patch.width, patch.height + pad)
    high = (pad, 0, patch.width - pad, patch.height)
    return patch.crop(wide if pad > 0 else high)  # type: ignore[arg-type]


def find_pictures(config: Config, raw: Path, files: Sequence[str]) -> list[Picture]:
    """Return the patches as pictures: a photograph, and what cuts the patch out of it."""
    return [Picture(raw / photo, partial(cut_patch, box=tuple(box))) for photo, *box in _find_boxes(raw, files)]


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the patches, uint8, N x size x size x 3, cut out of their photographs."""
    patches = _find_boxes(raw, files)
    return decode([raw / patch[0] for patch in patches], size, lambda image, i: cut_patch(image, tuple(patches[i][1:])))


def _find_boxes(raw: Path, files: Sequence[str]) -> list[list[Any]]:
    """Return photograph, left, top, width and height of each patch."""
    path = raw / PATCHES
    if not path.exists():
        raise Refused(f"no {path}: fetch the source again")
    rows = json.loads(path.read_bytes())
    return [rows[int(file)] for file in files]
