"""Macro F1: mean of 2 TP / (images + predicted) of a class, over the classes that have test images.

That is the mean of the classes' harmonic means of precision and recall, the first of the two in Opitz and Burst,
arXiv:1911.03347, and scikit-learn's f1_score(average="macro"). A class that is never predicted counts as 0.
"""

import numpy as np

from ltpipe.evaluation.metrics import ALL
from ltpipe.storage.table import Table

HIGHER_IS_BETTER = True
PARTS = (ALL,)


def measure(rows: Table, classes: int) -> dict[str, float]:
    """Return the mean of the F1 of the classes that have images."""
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    hits, images, predicted = (np.bincount(labels, minlength=classes) for labels in (y[y == p], y, p))
    present = images > 0
    return {ALL: 100 * float((2 * hits[present] / (images + predicted)[present]).mean())}
