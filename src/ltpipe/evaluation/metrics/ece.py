"""Expected calibration error: how far accuracy and confidence are apart, over bins of the confidence.

The mean of |accuracy - confidence| over 15 bins of equal width, weighted by their sizes (Guo et al., ICML 2017).
The bins are also the reliability diagram of the report.
"""

import numpy as np

from ltpipe.evaluation.metrics import ALL
from ltpipe.storage.table import Table

HIGHER_IS_BETTER = False
PARTS = (ALL,)
BINS = 15


def measure(rows: Table, classes: int) -> dict[str, float]:
    """Return the expected calibration error of all images."""
    correct = (rows["label"] == rows["predicted"]).to_numpy()
    return {ALL: ece(rows["confidence"].to_numpy(), correct)}


def ece(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Return the mean of |accuracy - confidence| over the bins, weighted by their sizes, in percent."""
    return sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in reliability(confidence, correct, bins)) / len(
        correct
    )


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """Return n, mean confidence and accuracy (both in percent) of each non-empty bin of equal width.

    confidence: N, 0..1, of the predicted class. correct: N, bool. A bin includes its upper edge, as in the paper.
    """
    # (b/bins, (b+1)/bins] has number b; clip, because a confidence of exactly 0 belongs to the first bin
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "n": int((number == b).sum()),
            "confidence": 100 * float(confidence[number == b].mean()),
            "accuracy": 100 * float(correct[number == b].mean()),
        }
        for b in range(bins)
        if (number == b).any()
    ]
