"""Expected calibration error (Guo et al., ICML 2017) and the reliability diagram behind it."""

import numpy as np

BINS = 15


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[dict[str, float]]:
    """One entry for each non-empty bin of equal width: n, mean confidence and accuracy, both in percent.

    confidence: N, 0..1, of the predicted class. correct: N, bool. Bins are open at their lower edge, as in the paper.
    """
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
    """Mean |accuracy - confidence| of the bins, weighted by their sizes, in percent."""
    return sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in reliability(confidence, correct, bins)) / len(
        correct
    )
