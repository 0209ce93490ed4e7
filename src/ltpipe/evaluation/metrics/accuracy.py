"""Accuracy: correct images / images, the micro average.

On a test set with balanced classes it equals the mean of the classes' recalls. "Accuracy" of the generalised long tail
(Tang et al., ECCV 2022).
"""

import numpy as np

from ltpipe.evaluation.metrics import ALL, ATTRIBUTE, members
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table

HIGHER_IS_BETTER = True
PARTS = (ALL, *GROUPS, ATTRIBUTE)


def measure(rows: Table, classes: int) -> dict[str, float]:
    """Return the accuracy on the images of each part."""
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    return {part: accuracy(y[member], p[member]) for part, member in members(rows, PARTS)}


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return correct images / images, in percent. labels, predicted: N."""
    return 100 * float((labels == predicted).mean())
