"""What a method may change, hook by hook. Every default is plain cross-entropy with one shuffled stream.

A method is the module of its name in this folder: a docstring that begins with its paper, a `Config` block, pure
functions for the mathematics, and a `Method` that overrides only the hooks it needs. It imports without torch (inside
functions, or under TYPE_CHECKING), because Kedro reads the Config of every run when only `evaluate` is asked for. A
Config whose defaults do not show everything in two epochs is accompanied by EXAMPLE, options that do.

All state that outlives a step belongs in the module that `build` returns (parameters and buffers): checkpoints hold
that module and nothing else of a method.

Shapes: B batch, N training images, C classes, D features, E experts or branches.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from ltpipe.specs import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Network, Output

# a time in the schedule: an epoch (an integer, from 0), or a fraction of all epochs (a float in 0..1)
When = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]


# private stages of RIDE's experts, hence of TADE's: 24 and 48 channels of 32 and 64 (Wang et al., ICLR 2021)
NARROW = 0.75


def at(when: int | float, epochs: int) -> int:
    """The epoch (from 0) that `when` means in a schedule of `epochs` epochs."""
    return when if isinstance(when, int) else round(when * epochs)


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


@dataclass
class Clock:
    """Where training is, set by the loop; a method and its base share one.

    phase: index into what `phases` returned. epoch: over all phases, from 0; in `finish` it is `epochs`, their sum.
    """

    phase: int = 0
    epoch: int = 0
    epochs: int = 0

    def passed(self, when: int | float) -> bool:
        """The current epoch is `when` or later."""
        return self.epoch >= at(when, self.epochs)


@dataclass(frozen=True)
class Needs:
    """branches: private copies of the backbone's last stages (experts). narrow: share of its channels that such a copy
    keeps, where the backbone has channels to spare. split: while training, branch e sees only the
    e-th part of the batch. start_from: the run must name a finished run whose weights it starts from. keeps: the parts
    that are taken from that run; the others start anew."""

    branches: int = 1
    narrow: float = 1.0
    split: bool = False
    start_from: bool = False
    keeps: tuple[str, ...] = ("backbone", "head")


class Augment(Spec):
    """Drawn anew for each image at each step, in the order of the fields.

    crop: pixels of zero padding before a random crop of the network's size. resized_crop: smallest and largest share of
    the image's area that a random box takes before it is resized (Szegedy et al., CVPR 2015). Without either, larger
    images give their centre. autoaugment: the CIFAR-10 policy (Cubuk et al., CVPR 2019). randaug: two random operations
    (Xie et al., 2020). cutout: side of a black square in pixels.
    """

    crop: int = Field(0, ge=0)
    resized_crop: tuple[Share, Share] | None = None
    flip: bool = False
    autoaugment: bool = False
    randaug: bool = False
    cutout: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_crop(self) -> "Augment":
        if self.resized_crop and self.crop:
            raise ValueError(f"crop: {self.crop} and resized_crop exclude each other")
        if self.resized_crop and self.resized_crop[0] > self.resized_crop[1]:
            raise ValueError(f"resized_crop: smallest share before largest, not {list(self.resized_crop)}")
        return self


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimiser. `trainable`: of backbone, head, own; the rest is frozen, in eval mode.

    decay: "cosine" (to 0 over the phase, per epoch), or factors by the epoch of the phase from which they hold; {} is
    a constant rate. drift: frozen parts stay in training mode, so that their batch-norm statistics drift.
    """

    epochs: int
    lr: float
    warmup: int = 0
    decay: str | dict[int, float] = "cosine"
    trainable: tuple[str, ...] = ("backbone", "head", "own")
    drift: bool = False
    augment: Augment = field(default_factory=Augment)

    def augmented(self, **changes: Any) -> "Phase":
        """The same phase with other augmentation, e.g. randaug=True."""
        return replace(self, augment=self.augment.model_copy(update=changes))


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


class Retraining(Spec):
    """A second stage on a finished run: cosine rate from lr to 0, class-aware sampling of per_class images a class.

    drift: batch-norm statistics of the frozen backbone follow the stream, as in the authors' codes.
    """

    epochs: int = Field(10, gt=0)
    lr: float = Field(0.1, gt=0)
    per_class: int = Field(4, ge=1)
    drift: bool = False

    def phase(self, whole: Phase, trainable: str) -> Phase:
        """The stage's one phase, with the benchmark's augmentation."""
        return Phase(self.epochs, self.lr, trainable=(trainable,), drift=self.drift, augment=whole.augment)


def class_aware(problem: Problem, per_class: int) -> Stream:
    """Class-aware sampling, min(n_max * C, 4 N) images an epoch (the length of Kang et al., ICLR 2020, capped)."""
    counts = problem.counts
    return Stream(per_class=per_class, length=int(min(counts.max() * (counts > 0).sum(), 4 * counts.sum())))


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
    """Images of a split seen by the network in eval mode, without augmentation; index: their rows in the split."""

    features: "Tensor"
    logits: "Tensor"
    labels: "Tensor"
    index: "Tensor"


# "train" or "val" -> the split in chunks, in manifest order: logits of a million images and 8,000 classes never exist
Embed = Callable[[str], Iterator[Embedding]]


def whole(chunks: Iterable[Embedding]) -> Embedding:
    """All chunks as one; for small splits."""
    import torch

    parts = list(chunks)
    fields = ("features", "logits", "labels", "index")
    return Embedding(*(torch.cat([getattr(part, field) for part in parts]) for field in fields))


def buffers(**values: np.ndarray) -> "nn.Module":
    """A module with the arrays as float32 buffers."""
    import torch
    from torch import nn

    own = nn.Module()
    for name, value in values.items():
        own.register_buffer(name, torch.tensor(value, dtype=torch.float32))
    return own


class Method:
    """The hooks. `clock` is set by the loop; `own` is what `build` returned."""

    def __init__(self, config: Spec, problem: Problem, base: "Method | None" = None, started: bool = False) -> None:
        self.config: Any = config
        self.problem = problem
        self.base = base  # the method that `options.base` names; a method never imports a method
        self.started = started  # the run starts from a finished run's weights
        self.clock: Clock = base.clock if base is not None else Clock()
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

    def own_group(self) -> dict[str, float]:
        """Optimiser options of own parameters, e.g. {"weight_decay": 0.0}."""
        return {}

    def phases(self, whole: Phase) -> tuple[Phase, ...]:
        """The phases of training; `whole` is the benchmark's schedule as one phase. None: weights stay as started."""
        return (whole,)

    def begin_epoch(self, embed: Embed) -> None:
        """Before an epoch's first step, once (not again where an epoch is resumed). Write results into buffers."""

    def streams(self) -> tuple[Stream, ...]:
        """The epoch's streams; a function of `clock` and of buffers that only `begin_epoch` changes."""
        return (Stream(),)

    def restream(self, prior: "Tensor") -> None:
        """A method around this one has changed the streams: from now on they have this class prior (C, sums to 1)."""

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        """One batch of the streams' batches, before the forward pass."""
        import torch

        if len(streams) == 1:
            return streams[0]
        images, labels, index = (torch.cat([getattr(s, f) for s in streams]) for f in ("images", "labels", "index"))
        return Batch(images, labels, index)

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


class Around(Method):
    """A method around another: every hook is the base's, until a subclass changes it.

    The base's own module is the child `base` of this one's.
    """

    base: Method

    def innermost(self) -> Method:
        """The method that is around no other."""
        return self.base.innermost() if isinstance(self.base, Around) else self.base

    def needs(self) -> Needs:
        return self.base.needs()

    def head(self, features: int) -> "nn.Module":
        return self.base.head(features)

    def build(self, features: int) -> "nn.Module":
        from torch import nn

        own = nn.Module()
        own.base = self.base.build(features) or nn.Module()
        self.base.own = own.base
        return own

    def own_group(self) -> dict[str, float]:
        return self.base.own_group()

    def phases(self, whole: Phase) -> tuple[Phase, ...]:
        return self.base.phases(whole)

    def begin_epoch(self, embed: Embed) -> None:
        self.base.begin_epoch(embed)

    def streams(self) -> tuple[Stream, ...]:
        return self.base.streams()

    def restream(self, prior: "Tensor") -> None:
        self.base.restream(prior)

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        return self.base.batch(streams)

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        return self.base.loss(out, batch)

    def after_step(self, out: "Output", batch: Batch) -> None:
        self.base.after_step(out, batch)

    def finish(self, network: "Network", embed: Embed) -> dict[str, Any]:
        return self.base.finish(network, embed)

    def predict(self, out: "Output") -> "Tensor":
        return self.base.predict(out)
