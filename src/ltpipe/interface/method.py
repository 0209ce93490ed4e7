"""What a method may change, hook by hook. Every default is plain cross-entropy on one shuffled stream of images.

To add a method, write a file in ltpipe/methods. The file name is the method's name. The file has a docstring with the
parts that ltpipe/methods/__init__.py lists (the paper first), a `Config` block, the mathematics as pure functions, and
a `Method` that overrides the hooks it needs. Import torch inside functions only: Kedro reads the Config of every run,
also when only `evaluate` is asked for. If the default options do not show all of the method within two epochs, add
EXAMPLE, options that do.

Keep all state that outlives a step in the module that `build` returns (parameters and buffers): checkpoints store
that module and nothing else of a method.

With `schedule.accumulate`, the network computes a batch in parts; every hook still gets the whole batch, once a step.

Shapes: B batch, N training images, C classes, D features, E experts or branches.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ltpipe.config.spec import Spec
from ltpipe.interface.phases import Clock, Phase
from ltpipe.interface.streams import Batch, Problem, Stream

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ltpipe.models.network import Network, Output

# The part of the backbone that each branch has for itself: its last two stages (RIDE, TADE), its last block (BBN), or
# all of it, so that every branch is a whole network.
Private = Literal["stages", "block", "all"]
# Channels that an expert of RIDE and TADE keeps in its private stages: 24 of 32, 48 of 64 (Wang et al., ICLR 2021).
NARROW = 0.75


@dataclass(frozen=True)
class Needs:
    """What a method requires of the network and of the run.

    branches: private copies of a part of the backbone (experts). private: which part. narrow: share of their channels
    that the last two stages keep if there are several branches, where the backbone allows it. partition_batch: while
    training, trunk and branch e see the e-th part of the batch in a forward pass of its own. start_from: the run must
    start from the weights of a finished run. trained_backbone: it must start from those, or from the
    weights of a file, as the method trains no backbone. keeps: the parts taken from that run; the others start anew.
    """

    branches: int = 1
    private: Private = "stages"
    narrow: float = 1.0
    partition_batch: bool = False
    start_from: bool = False
    trained_backbone: bool = False
    keeps: tuple[str, ...] = ("backbone", "head")


@dataclass(frozen=True)
class Embedding:
    """The network's answer for some images, in eval mode.

    features: B x D. logits: B x C. labels, index (row of the split): B.
    """

    features: "Tensor"
    logits: "Tensor"
    labels: "Tensor"
    index: "Tensor"


# Maps "train" or "val" to the split in chunks, in manifest order and without augmentation; and, in `begin_epoch`,
# "stream" to images of the epoch's streams with the phase's augmentation, drawn apart from those that are trained on.
# Chunks, because the logits of a million images and 8,000 classes would not fit into memory.
Embed = Callable[[str], Iterator[Embedding]]


def concatenate(chunks: Iterable[Embedding]) -> Embedding:
    """Return all chunks as one embedding; for small splits."""
    import torch

    parts = list(chunks)
    fields = ("features", "logits", "labels", "index")
    return Embedding(*(torch.cat([getattr(part, field) for part in parts]) for field in fields))


def buffers(**values: np.ndarray) -> "nn.Module":
    """Return a module with the arrays as float32 buffers."""
    import torch
    from torch import nn

    own = nn.Module()
    for name, value in values.items():
        own.register_buffer(name, torch.tensor(value, dtype=torch.float32))
    return own


def linear_head(features: int, problem: Problem) -> "nn.Module":
    """Return a linear layer B x D -> B x C, with a bias unless the benchmark's model has none; features is D."""
    from torch import nn

    return nn.Linear(features, problem.classes, bias=problem.head_bias)


class Method:
    """The hooks of a method. The loop sets `clock`; `own` is the module that `build` returned."""

    def __init__(self, config: Spec, problem: Problem, base: "Method | None" = None, started: bool = False) -> None:
        self.config: Any = config
        self.problem = problem
        self.base = base  # the method named by `options.base`: a method never imports another one
        self.started = started  # the run starts from the weights of a finished run
        self.clock: Clock = base.clock if base is not None else Clock()
        self.own: Any = None

    def needs(self) -> Needs:
        """Return the backbone variant, and whether a finished run is needed."""
        return Needs()

    def head(self, features: int) -> "nn.Module":
        """Return the classifier: features B x D (or B x E x D) -> logits B x C (or B x E x C)."""
        return linear_head(features, self.problem)

    def build(self, features: int) -> "nn.Module | None":
        """Return the method's own parameters and buffers; features is D."""
        return None

    def own_group(self) -> dict[str, float]:
        """Return optimiser options for the own parameters: weight_decay, lr_scale (a factor of the phase's lr)."""
        return {}

    def smooths(self) -> bool:
        """Tell whether the loss is the mean cross-entropy that `schedule.label_smoothing` generalises.

        A method whose own loss follows `problem.label_smoothing` overrides it.
        """
        return type(self).loss is Method.loss

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        """Return the phases of training; `schedule` is the benchmark's recipe as one phase. () trains nothing."""
        return (schedule,)

    def begin_epoch(self, embed: Embed) -> None:
        """Prepare an epoch before its first step; not called again for a resumed epoch. Write results into buffers."""

    def streams(self) -> tuple[Stream, ...]:
        """Return the streams of the epoch: a function of `clock` and of buffers that only `begin_epoch` changes."""
        return (Stream(),)

    def class_prior_changed(self, prior: "Tensor") -> None:
        """Take note that a method around this one changed the streams: from now on they have this prior (C, sum 1)."""

    def batch(self, streams: tuple[Batch, ...]) -> Batch:
        """Combine the batches of the streams into one, before the forward pass."""
        import torch

        if len(streams) == 1:
            return streams[0]
        images, labels, index = (torch.cat([getattr(s, f) for s in streams]) for f in ("images", "labels", "index"))
        return Batch(images, labels, index)

    def loss(self, out: "Output", batch: Batch) -> "dict[str, Tensor]":
        """Return the loss under "loss", and parts to log under other names. Logits come in float32."""
        from torch.nn import functional as F

        smoothing = self.problem.label_smoothing
        return {"loss": F.cross_entropy(out.logits, batch.labels, label_smoothing=smoothing)}

    def after_step(self, out: "Output", batch: Batch) -> None:
        """Update moving averages and centres after the optimiser's step; `out` is detached."""

    def finish(self, network: "Network", embed: Embed) -> dict[str, Any]:
        """Change weights without training, after the last phase. Return facts for the checkpoint's metadata."""
        return {}

    def predict(self, out: "Output") -> "Tensor":
        """Return the logits to serve, B x C; exported into the graph."""
        return out.logits


class Around(Method):
    """A method around another: passes every hook on to its base, unless a subclass overrides it.

    The base's own module is the child `base` of this one's.
    """

    base: Method

    def innermost(self) -> Method:
        """Return the method that has no base."""
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

    def smooths(self) -> bool:
        return type(self).loss is Around.loss and self.base.smooths()

    def phases(self, schedule: Phase) -> tuple[Phase, ...]:
        return self.base.phases(schedule)

    def begin_epoch(self, embed: Embed) -> None:
        self.base.begin_epoch(embed)

    def streams(self) -> tuple[Stream, ...]:
        return self.base.streams()

    def class_prior_changed(self, prior: "Tensor") -> None:
        self.base.class_prior_changed(prior)

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
