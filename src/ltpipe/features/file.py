"""Features that another program computed, from a .npy file."""

import numpy as np
from pydantic import Field, field_validator

from ltpipe.config.spec import Refused, Spec
from ltpipe.extraction.passage import Given
from ltpipe.storage.table import Table


class Config(Spec):
    """The file with the features."""

    path: str = Field(description="a .npy file: D numbers for each row of the index, or for each row to be clustered")

    @field_validator("path")
    @classmethod
    def _check_suffix(cls, path: str) -> str:
        if not path.endswith(".npy"):
            raise ValueError(f"a path that ends in .npy, not {path!r}")
        return path

    def files(self) -> frozenset[str]:
        return frozenset({self.path})


def extract(config: Config, index: Table, rows: np.ndarray, given: Given) -> np.ndarray:
    """Return the features of `rows`, N x D; mapped from the file unless rows have to be selected.

    Raises Refused if the file cannot be read or has the wrong number of rows.
    """
    try:
        features: np.ndarray = np.load(config.path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Refused(f"features: file: cannot read {config.path}: {error}") from None
    if features.ndim != 2 or len(features) not in (len(index), len(rows)):
        raise Refused(
            f"features: file: {config.path} is {' x '.join(map(str, features.shape))}, not D numbers for each of the "
            f"{len(index)} rows of the index, nor of the {len(rows)} rows to be clustered, in index order"
        )
    return features if len(features) == len(rows) else features[rows]
