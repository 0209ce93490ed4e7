"""Recall: mean of correct images / images of a class, over the classes that have test images (the macro average).

Of a group: the mean over its classes. Also called balanced accuracy (Brodersen et al., ICPR 2010).
"""

import numpy as np

from ltpipe.evaluation.metrics import ALL, members
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table

HIGHER_IS_BETTER = True
PARTS = (ALL, *GROUPS)


def measure(rows: Table, classes: int) -> dict[str, float]:
    """Return the mean recall of the classes of each part."""
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    return {part: 100 * float(recalls(y[member], p[member]).mean()) for part, member in members(rows, PARTS)}


def recalls(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the recall of each class that has images, 0..1, by ascending label. labels, predicted: N."""
    _, number = np.unique(labels, return_inverse=True)
    return np.bincount(number, weights=labels == predicted) / np.bincount(number)
