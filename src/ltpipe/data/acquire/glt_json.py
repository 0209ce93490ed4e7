"""Read the files in which the authors of GLT (Tang et al., ECCV 2022) publish their splits.

A file maps each split (train, val, test_lt, test_bl, test_bbl) to `label` and `attribute`, which map a path to an
integer.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltpipe.config.spec import Refused

# the authors' split name -> ours
LONG_TAIL = {"train": "train_glt", "val": "val", "test_lt": "test_glt", "test_bl": "test_cbl", "test_bbl": "test_gbl"}
BALANCED = {"train": "train_cbl"}


class GltSplit(NamedTuple):
    """One split: the authors' file names, and their labels and attributes (-1: not stated), int64, N."""

    files: list[str]
    labels: np.ndarray
    attributes: np.ndarray


def read_glt_splits(path: Path, names: dict[str, str]) -> dict[str, GltSplit]:
    """Return the splits of a file under our names. Raises Refused if it is not one of the authors' files.

    names: the authors' split name -> ours.
    """
    try:
        content = json.loads(path.read_bytes())
        return {ours: _parse_split(content[theirs]) for theirs, ours in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(
            f"{path} is not a file of the GLT authors ({type(error).__name__}: {error}); it must map "
            f"{', '.join(names)} to label and attribute, and these must map a path to an integer"
        ) from None


def _parse_split(content: dict[str, dict[str, int]]) -> GltSplit:
    files, attribute = list(content["label"]), content.get("attribute", {})
    labels = np.array([int(content["label"][file]) for file in files], dtype=np.int64)
    return GltSplit(files, labels, np.array([int(attribute.get(file, -1)) for file in files], dtype=np.int64))
