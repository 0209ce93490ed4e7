"""Places-LT: a long-tailed subset of Places365-Standard, 365 scenes, from a local folder.

62,500 training images (4,980 to 5 per class), 20 val and 100 test images per class, as in Liu et al. (CVPR 2019).
Official train and val are drawn from Places365 train, official test from its val. A second variant of these lists
circulates; this source uses those of Kang et al. (ICLR 2020), and their checksums rule out the others. For the format
of lists see ltpipe.data.acquire.image_lists.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Spec
from ltpipe.data.acquire import image_lists
from ltpipe.data.acquire.local_folder import Dataset, link_dataset
from ltpipe.data.decode import decode
from ltpipe.storage.table import Table

NOTICE = """Places365-Standard (Zhou et al., TPAMI 2018), http://places2.csail.mit.edu: terms: non-commercial research
and education; the pictures belong to their owners. Lists of Places-LT: Liu et al., CVPR 2019, as in
github.com/facebookresearch/classifier-balancing.
"""

DATASET = Dataset(
    source="places365",
    variable="LTPIPE_PLACES365",
    entries=("train", "val"),
    obtain="""
    get Places365-Standard, small images (256 x 256) with easy directory structure:
    places365standard_easyformat.tar (about 24 GB by what others say of it; not verified here)
    from http://places2.csail.mit.edu/download.html
    terms: non-commercial research and education, not to be passed on
    layout: places365_standard/train/<scene>/*.jpg and val/<scene>/*.jpg; the folder to name is places365_standard
    """,
)

CLASSES = 365
LISTS = {
    "train": image_lists.official_list("Places_LT", "Places_LT_train.txt", "6392252f8ae867bc8a5e841cc1b29e5b8ef4b636"),
    "val": image_lists.official_list("Places_LT", "Places_LT_val.txt", "b93a2ca58ccb7f3b671c176f395a70bf52c95533"),
    "test": image_lists.official_list("Places_LT", "Places_LT_test.txt", "e732e58b8aa718a2c1c11933375f5710652c2b93"),
}


class Config(Spec):
    """Where the images are."""

    root: str = Field("", description="folder with train and val; default: env LTPIPE_PLACES365, or the raw folder")


def build_index(config: Config, raw: Path) -> Table:
    """Return the index of 106,300 images; class_name is the scene's folder."""
    link_dataset(DATASET, config.root, raw)
    table = image_lists.build_list_index(LISTS, raw, CLASSES, f"source {DATASET.source}")
    return table.assign(class_name=table["file"].str.split("/").str[-2])


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the images of `files`, uint8, N x size x size x 3; see ltpipe.data.decode."""
    return decode([raw / file for file in files], size)
