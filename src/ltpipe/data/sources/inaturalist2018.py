"""iNaturalist 2018: 8,142 species, 437,513 training and 24,426 val images (the field's test set), from a local folder.

The number of a class is the number of its folder. The official lists say which images are used, and in which order;
for the format of lists see ltpipe.data.acquire.image_lists.
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

NOTICE = """iNaturalist 2018 competition (Van Horn et al., CVPR 2018), https://github.com/visipedia/inat_comp: terms:
non-commercial research and education; each photograph has its own author and licence.
Lists: Kang et al., ICLR 2020, github.com/facebookresearch/classifier-balancing.
"""

DATASET = Dataset(
    source="inaturalist2018",
    variable="LTPIPE_INATURALIST2018",
    entries=("train_val2018",),
    obtain="""
    get train_val2018.tar.gz (120 GB, md5 b1c6952ce38f31868cc50ea72d066cc3)
    from https://github.com/visipedia/inat_comp/tree/master/2018 (section Data; no registration)
    terms: non-commercial research and education
    layout: train_val2018/<super category>/<class>/<name>.jpg
    """,
)

CLASSES = 8142
LISTS = {
    "train": image_lists.official_list(
        "iNaturalist18", "iNaturalist18_train.txt", "4accdb7584d2f0a5106c40a33ed6afa392189bcc"
    ),
    "val": image_lists.official_list(
        "iNaturalist18", "iNaturalist18_val.txt", "4c23900857fd0f5adcd4cc0dffef345039eeb05f"
    ),
}


class Config(Spec):
    """Where the images are."""

    root: str = Field(
        "", description="folder with train_val2018; default: env LTPIPE_INATURALIST2018, or the raw folder"
    )


def build_index(config: Config, raw: Path) -> Table:
    """Return the index of 461,939 images; class_name is "<super category> <class>" (the release hides the species)."""
    link_dataset(DATASET, config.root, raw)
    table = image_lists.build_list_index(LISTS, raw, CLASSES, f"source {DATASET.source}")
    parts = table["file"].str.split("/")
    return table.assign(class_name=parts.str[-3] + " " + parts.str[-2])


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the images of `files`, uint8, N x size x size x 3; see ltpipe.data.decode."""
    return decode([raw / file for file in files], size)
