"""Formulas that several methods share: class priors, re-weighting, margins, weighted and mixed cross-entropy.

Pure functions. They import torch when they are called, so that reading a method's Config does not import it.
"""

from typing import TYPE_CHECKING

import numpy as np

from ltpipe.config.spec import Refused

if TYPE_CHECKING:
    from torch import Tensor


def log_prior(prior: np.ndarray) -> np.ndarray:
    """Return log pi of the class prior pi, C, float64. prior: C, sums to 1.

    Raises Refused if a class has no training image: its log would be -inf.
    """
    absent = np.flatnonzero(prior <= 0)
    if len(absent):
        raise Refused(f"logit adjustment needs a training image of every class; none of: {absent.tolist()}")
    return np.log(prior)


def class_balanced_weights(counts: np.ndarray, beta: float = 0.9999) -> np.ndarray:
    """Return w_c = (1 - beta) / (1 - beta^n_c), scaled to sum to the number of classes with images; C, float64.

    Cui et al., CVPR 2019, eq. 3. counts: n_c, C. beta = 1 gives the limit 1 / n_c, beta = 0 gives 1. A class without
    images has weight 0.
    """
    counts = np.asarray(counts, dtype=np.float64)
    present = counts > 0
    safe = np.maximum(counts, 1)
    # By expm1 and log1p, because 1 - beta^n loses all its digits if beta is within 1e-12 of 1.
    raw = 1 / safe if beta == 1 else (1 - beta) / (-np.expm1(safe * np.log1p(beta - 1)) if beta > 0 else 1.0)
    raw = np.where(present, raw, 0.0)
    weights: np.ndarray = raw * present.sum() / raw.sum()
    return weights


def ldam_margins(counts: np.ndarray, largest: float = 0.5) -> np.ndarray:
    """Return m_c = largest * n_c^(-1/4) / max_j n_j^(-1/4); C, float64, in units of the cosine.

    Cao et al., 2019, eq. 13. counts: n_c, C. A class without images counts as one image: its margin is never used,
    because no image has its label.
    """
    quarter = np.maximum(np.asarray(counts, dtype=np.float64), 1) ** -0.25
    margins: np.ndarray = largest * quarter / quarter.max()
    return margins


def adjusted_loss(
    logits: "Tensor",
    labels: "Tensor",
    shift: "Tensor | None" = None,
    margin: "Tensor | None" = None,
    weight: "Tensor | None" = None,
) -> "Tensor":
    """Return the cross-entropy of logits + shift, after subtracting `margin` from the true class's logit; scalar, nats.

    The pairwise-margin family of Menon et al., ICLR 2021, eq. 11. logits: B x C. labels: B. shift, margin, weight: C.
    With `weight`, the mean over the batch is weighted: sum_b w_yb l_b / sum_b w_yb, as in the authors' codes.
    """
    from torch.nn import functional as F

    if shift is not None:
        logits = logits + shift
    if margin is not None:
        logits = logits - margin[labels][:, None] * F.one_hot(labels, logits.shape[1])
    return F.cross_entropy(logits, labels, weight=weight)


def mixed_loss(logits: "Tensor", labels: "Tensor", other: "Tensor", share: float, smoothing: float = 0.0) -> "Tensor":
    """Return share * CE(labels) + (1 - share) * CE(other); scalar, nats.

    logits: B x C. labels, other: B. share: 0..1. smoothing: share of each label that all classes have together.
    """
    from torch.nn import functional as F

    first, second = (F.cross_entropy(logits, target, label_smoothing=smoothing) for target in (labels, other))
    return share * first + (1 - share) * second
