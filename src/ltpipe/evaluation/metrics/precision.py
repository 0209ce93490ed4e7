"""Precision: mean of TP / predicted over the classes that have test images, the macro average.

A class that is never predicted counts as 0 and stays in the mean (Tang et al., ECCV 2022).
Of a frequency group: the mean over its classes, with predictions counted on the whole test set; so the groups, weighted
by their numbers of classes, add up to the precision of all classes.
Of an attribute: within the images of that attribute; so the attributes do not add up.
"""

import numpy as np

from ltpipe.evaluation.metrics import ALL, ATTRIBUTE, members
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table

HIGHER_IS_BETTER = True
PARTS = (ALL, *GROUPS, ATTRIBUTE)


def measure(rows: Table, classes: int) -> dict[str, float]:
    """Return the mean precision of the classes of each part."""
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    whole = {part: precision(y, p, classes, among=y[member]) for part, member in members(rows, (ALL, *GROUPS))}
    inside = {part: precision(y[member], p[member], classes) for part, member in members(rows, (ATTRIBUTE,))}
    return whole | inside


def precision(labels: np.ndarray, predicted: np.ndarray, classes: int, among: np.ndarray | None = None) -> float:
    """Return the mean of `class_precision` over the classes in `among`, in percent.

    among: labels of a subset of the images; default: `labels`.
    """
    present = np.unique(labels if among is None else among)
    return 100 * float(class_precision(labels, predicted, classes)[present].mean())


def class_precision(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return TP / predicted of each class, 0..1, C; 0 for a class that is never predicted."""
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    # at least 1, because a class that is never predicted has no hits either: 0 / 1 = 0
    return hits / np.maximum(np.bincount(predicted, minlength=classes), 1)
