"""Choose the strength tau of a post-processing by macro recall on the validation split, never on the test split.

Plain accuracy on a long-tailed validation split would pick the strength that suits the largest classes, which is none.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TAUS = tuple(round(0.1 * step, 1) for step in range(31))  # 0.0, 0.1, ..., 3.0


def macro_recall(predicted: "Tensor", labels: "Tensor", classes: int) -> "Tensor":
    """Return the mean recall over the classes in `labels` of K candidate predictions; K, 0..1.

    predicted: K x B. labels: B.
    """
    from torch.nn import functional as F

    member = F.one_hot(labels, classes).double()
    hits = (predicted == labels).double() @ member
    present = member.sum(dim=0)
    return (hits[:, present > 0] / present[present > 0]).mean(dim=1)


def choose_tau(logits: "Callable[[float], Tensor]", labels: "Tensor", classes: int) -> dict[str, Any]:
    """Return the tau of TAUS with the best macro recall (the smallest if several are equal), as facts about the run.

    logits: maps tau to the logits of the validation images, B x C. labels: B. The facts are `tau`, its recall
    `tau_macro_recall`, `val_absent` (classes without a validation image) and `val_classes` (the number of the other
    classes, over which the recall is the mean).
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
