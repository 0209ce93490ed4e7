"""Worst group: the lowest accuracy of a group, that is of a pair (class, attribute) that has test images.

Sagawa et al., ICLR 2020. These groups are not many, medium and few. Without attributes it equals `worst_class`.
"""

import numpy as np

from ltpipe.evaluation.metrics import ALL
from ltpipe.storage.table import Table

HIGHER_IS_BETTER = True
PARTS = (ALL,)


def measure(rows: Table, classes: int) -> dict[str, float]:
    """Return the accuracy of the worst group."""
    y, p, attribute = (rows[column].to_numpy() for column in ("label", "predicted", "attribute"))
    # the key of a pair; an attribute may be -1, so there is one more value than the largest rank + 1
    _, number = np.unique(y * (attribute.max() + 2) + attribute, return_inverse=True)
    return {ALL: 100 * float((np.bincount(number, weights=y == p) / np.bincount(number)).min())}
