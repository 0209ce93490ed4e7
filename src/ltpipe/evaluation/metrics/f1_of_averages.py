"""F1 of averages, of the generalised long tail: 2 * accuracy * precision / (accuracy + precision).

It is in Tang et al., ECCV 2022: the harmonic mean of the two averages, the second of the two F1 in Opitz and Burst,
arXiv:1911.03347. It is not the mean of the classes' F1, which scikit-learn calls macro F1; that is `macro_f1`.
"""

from ltpipe.evaluation.metrics import ALL
from ltpipe.evaluation.metrics.accuracy import accuracy
from ltpipe.evaluation.metrics.precision import precision
from ltpipe.storage.table import Table

HIGHER_IS_BETTER = True
PARTS = (ALL,)


def measure(rows: Table, classes: int) -> dict[str, float]:
    """Return the harmonic mean of the accuracy and the precision of all images."""
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    return {ALL: f1_of_averages(accuracy(y, p), precision(y, p, classes))}


def f1_of_averages(accuracy: float, precision: float) -> float:
    """Return the harmonic mean; 0 if both are 0."""
    return 2 * accuracy * precision / (accuracy + precision) if accuracy + precision else 0.0
