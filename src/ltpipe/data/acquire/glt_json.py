"""The files in which the authors of GLT (Tang et al., ECCV 2022) publish their splits: read, and matched to an index.

A file maps each split (train, val, test_lt, test_bl, test_bbl) to `label` and `attribute`, each path -> integer.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltpipe.config.spec import Refused

# the authors' names, and ours
LONG_TAIL = {"train": "train_glt", "val": "val", "test_lt": "test_glt", "test_bl": "test_cbl", "test_bbl": "test_gbl"}
BALANCED = {"train": "train_cbl"}


class Listed(NamedTuple):
    """One split: files as the authors name them, their labels and attributes (-1: not stated)."""

    files: list[str]
    labels: np.ndarray
    attributes: np.ndarray


def read(path: Path, names: dict[str, str]) -> dict[str, Listed]:
    """The splits of a file under our names. Raises Refused where it is not one of the authors' files."""
    try:
        content = json.loads(path.read_bytes())
        return {ours: _split(content[theirs]) for theirs, ours in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(
            f"{path} is not a file of the GLT authors ({type(error).__name__}: {error}); it must map "
            f"{', '.join(names)} to label and attribute by path"
        ) from None


def _split(content: dict[str, dict[str, int]]) -> Listed:
    files, attribute = list(content["label"]), content.get("attribute", {})
    labels = np.array([int(content["label"][file]) for file in files], dtype=np.int64)
    return Listed(files, labels, np.array([int(attribute.get(file, -1)) for file in files], dtype=np.int64))
