"""Expected calibration error (Guo et al., ICML 2017), and the reliability diagram that it is computed from."""

import numpy as np

BINS = 15


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


def ece(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Return the mean of |accuracy - confidence| over the bins, weighted by their sizes, in percent."""
    return sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in reliability(confidence, correct, bins)) / len(
        correct
    )
