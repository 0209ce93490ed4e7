"""A post-processing strength chosen on the validation split by MACRO recall; never on test.

Plain accuracy on a long-tailed validation set would pick the strength that helps the largest classes: none.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TAUS = tuple(round(0.1 * step, 1) for step in range(31))


def macro_recall(predicted: "Tensor", labels: "Tensor", classes: int) -> "Tensor":
    """Mean recall over the classes present in `labels`; predicted: K x B for K candidates. Returns K, 0..1."""
    from torch.nn import functional as F

    member = F.one_hot(labels, classes).double()
    hits = (predicted == labels).double() @ member
    present = member.sum(dim=0)
    return (hits[:, present > 0] / present[present > 0]).mean(dim=1)


def choose(logits: "Callable[[float], Tensor]", labels: "Tensor", classes: int) -> dict[str, Any]:
    """The tau of TAUS with the best macro recall (the smallest of equals), that recall, and what is missing.

    logits: tau -> logits of the validation images, B x C. labels: B. val_absent: classes without a validation image;
    the recall is the mean over the others, val_classes of them.
    """
    import torch

    recall = macro_recall(torch.stack([logits(tau).argmax(dim=1) for tau in TAUS]), labels, classes)
    absent = sorted(set(range(classes)) - set(labels.tolist()))
    best = int(recall.argmax())
    return {
        "tau": TAUS[best],
        "tau_macro_recall": float(recall[best]),
        "val_classes": classes - len(absent),
        "val_absent": absent,
    }
