"""Features that another program computed, as one .npy file."""

from pathlib import Path

import numpy as np
from pydantic import field_validator

from ltpipe.data.fetch import Images
from ltpipe.data.tables import Table
from ltpipe.specs import Refused, Spec


class Config(Spec):
    """path: D numbers for each row of the index, or for each row that is clustered, in index order."""

    path: str

    @field_validator("path")
    @classmethod
    def _npy(cls, path: str) -> str:
        if not path.endswith(".npy"):
            raise ValueError(f"a path that ends in .npy, not {path!r}")
        return path

    def files(self) -> frozenset[str]:
        return frozenset({self.path})


def extract(config: Config, index: Table, rows: np.ndarray, images: Images, cache: Path | None) -> np.ndarray:
    """The file's features of `rows`, N x D, mapped where all are wanted.

    Raises Refused where the file cannot be read, or has another number of rows.
    """
    try:
        features: np.ndarray = np.load(config.path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Refused(f"clusters: cannot read the features {config.path}: {error}") from None
    if features.ndim != 2 or len(features) not in (len(index), len(rows)):
        raise Refused(
            f"clusters: {config.path} is {' x '.join(map(str, features.shape))}, not D numbers for each of the index's "
            f"{len(index)} rows, nor of the {len(rows)} rows of the official split, in index order"
        )
    return features if len(features) == len(rows) else features[rows]
