"""What a method may change, hook by hook. Every default is plain cross-entropy with one shuffled stream.

A method is the module of its name in this folder: a docstring that begins with its paper, a `Config` block, pure
functions for the mathematics, and a `Method` that overrides only the hooks it needs. It imports without torch (inside
functions, or under TYPE_CHECKING), because Kedro reads the Config of every run when only `evaluate` is asked for.

All state that outlives a step belongs in the module that `build` returns (parameters and buffers): checkpoints hold
that module and nothing else of a method.

Shapes: B batch, N training images, C classes, D features, E experts or branches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ltpipe.specs import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Network, Output


@dataclass(frozen=True)
class Problem:
    """What a method knows before training. labels: N class indices of the training split, int64."""

    labels: np.ndarray
    classes: int

    @property
    def counts(self) -> np.ndarray:
        """Training images of each class in class-index order, C, int64; a class without images counts 0."""
        return np.bincount(self.labels, minlength=self.classes)

    @property
    def prior(self) -> np.ndarray:
        """counts / N, float64."""
        return self.counts / self.counts.sum()


@dataclass(frozen=True)
class Needs:
    """branches: private copies of the backbone's last stages (experts). start_from: the run must name a finished run
    whose weights it starts from."""

    branches: int = 1
    start_from: bool = False


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimiser. `trainable`: of backbone, head, own; the rest is frozen, in eval mode.

    decay: "cosine" (to 0 over the phase, per epoch), or factors by the epoch of the phase from which they hold.
    """

    epochs: int
    lr: float
    warmup: int = 0
    decay: str | dict[int, float] = "cosine"
    trainable: tuple[str, ...] = ("backbone", "head", "own")


@dataclass(frozen=True)
class Stream:
    """One source of training images in an epoch.

    weights: N relative probabilities, drawn with replacement; None: every image once, shuffled.
    per_class: images per drawn class of class-aware sampling (classes uniform); 0: off. length: images an epoch
    (default N). whole: the stream fills a batch of its own; otherwise the streams share one batch equally.
    """

    weights: "Tensor | None" = None
    per_class: int = 0
    length: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class Batch:
    """images: B x 3 x H x W, normalised. labels, index (row of the training split): B. Mixed: share * label +
    (1 - share) * other."""

    images: "Tensor"
    labels: "Tensor"
    index: "Tensor"
    other: "Tensor | None" = None
    share: float = 1.0


@dataclass(frozen=True)
class Embedding:
    """A split seen by the network in eval mode, without augmentation, in manifest order."""

    features: "Tensor"
    logits: "Tensor"
    labels: "Tensor"


Embed = Callable[[str], Embedding]  # "train" or "val"


class Method:
    """The hooks. `epoch` (over all phases, from 0) and `own` (what `build` returned) are set by the loop."""

    own_group: dict[str, float] = {}  # optimiser options of own parameters, e.g. {"weight_decay": 0.0}

    def __init__(self, config: Spec, problem: Problem, base: "Method | None" = None, started: bool = False) -> None:
        self.config: Any = config
        self.problem = problem
        self.base = base  # the method that `options.base` names; a method never imports a method
        self.started = started  # the run starts from a finished run's weights
        self.epoch = 0
        self.own: Any = None

    def needs(self) -> Needs:
        """Backbone variant, and whether a finished run is needed."""
        return Needs()

    def head(self, features: int) -> "nn.Module":
        """The classifier: features B x D (or B x E x D) -> logits B x C (or B x E x C)."""
        from torch import nn

        return nn.Linear(features, self.problem.classes)

    def build(self, features: int) -> "nn.Module | None":
        """Own parameters and buffers; D = features."""
        return None

    def phases(self, whole: Phase) -> tuple[Phase, ...]:
        """The phases of training; `whole` is the benchmark's schedule as one phase. None: weights stay as started."""
        return (whole,)

    def begin_epoch(self, embed: Embed) -> None:
        """Before an epoch's first step, once (not again where an epoch is resumed). Write results into buffers."""

    def streams(self) -> tuple[Stream, ...]:
        """The epoch's streams; a function of `epoch` and of buffers that only `begin_epoch` changes."""
        return (Stream(),)

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        """One batch of the streams' batches, before the forward pass."""
        import torch

        if len(streams) == 1:
            return streams[0]
        fields = ("images", "labels", "index")
        return Batch(*(torch.cat([getattr(s, field) for s in streams]) for field in fields))

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        """The loss under "loss", and any parts to log under names of their own; float32 logits come in."""
        from torch.nn import functional as F

        return {"loss": F.cross_entropy(out.logits, batch.labels)}

    def after_step(self, out: "Output", batch: Batch) -> None:
        """After the optimiser's step (moving averages, centres); `out` is detached."""

    def finish(self, network: "Network", embed: Embed) -> dict[str, Any]:
        """After the last phase: change weights without training. Returns facts for the checkpoint's metadata."""
        return {}

    def predict(self, out: "Output") -> "Tensor":
        """The logits that are served, B x C; exported into the graph."""
        return out.logits
