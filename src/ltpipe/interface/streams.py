"""Which images an epoch shows, and what a batch of them holds. Shapes: B batch, N training images, C classes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """What a method knows before training.

    labels: class index of each training image, N, int64. head_bias: linear heads have a bias. label_smoothing: share of
    the label that all classes have together; 0 unless the method `smooths`.
    """

    labels: np.ndarray
    classes: int
    head_bias: bool = True
    label_smoothing: float = 0.0

    @property
    def counts(self) -> np.ndarray:
        """Training images of each class in class-index order, C, int64; 0 for a class without images."""
        return np.bincount(self.labels, minlength=self.classes)

    @property
    def prior(self) -> np.ndarray:
        """Share of each class in the training images, C, float64."""
        return self.counts / self.counts.sum()


@dataclass(frozen=True)
class Stream:
    """A source of training images in an epoch.

    weights: relative probability of each image, N, drawn with replacement; None shows every image once, shuffled.
    per_class: images of each drawn class in class-aware sampling (classes are uniform); 0 switches it off.
    length: images of an epoch, N by default. own_batch: the stream fills a batch of its own; otherwise all streams
    share one batch equally.
    """

    weights: "Tensor | None" = None
    per_class: int = 0
    length: int | None = None
    own_batch: bool = False


@dataclass(frozen=True)
class Batch:
    """Images with labels. images: B x 3 x H x W, normalised. labels, index (row of the training split): B.

    Mixed images have the label `labels` with weight `share` and the label `other` with weight 1 - share.
    """

    images: "Tensor"
    labels: "Tensor"
    index: "Tensor"
    other: "Tensor | None" = None
    share: float = 1.0


def class_aware(problem: Problem, per_class: int) -> Stream:
    """Return class-aware sampling of min(n_max * C, 4 N) images, as in the second stages of Tang et al., ECCV 2022."""
    counts = problem.counts
    return Stream(per_class=per_class, length=int(min(counts.max() * (counts > 0).sum(), 4 * counts.sum())))
