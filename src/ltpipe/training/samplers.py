"""Orders of training images: pure functions of labels, weights and a generator; all return int64 rows."""

import torch
from torch import Tensor

from ltpipe.interface.streams import Stream


def class_aware(labels: Tensor, per_class: int, length: int, generator: torch.Generator) -> Tensor:
    """`per_class` images of each drawn class; classes shuffled in cycles, so are a class's images (length).

    Shen et al., ECCV 2016. labels: N. Every class present is drawn equally often, to within one; so is every image of
    a class. No loop over classes: one sort of the classes' cycles, and one of the images' cycles.
    """
    classes, members = labels.unique(return_counts=True)
    draws = -(-length // per_class)
    rounds = -(-draws // len(classes))
    drawn = torch.rand(rounds, len(classes), generator=generator).argsort(dim=1).flatten()[:draws]
    needed = torch.bincount(drawn, minlength=len(classes)) * per_class
    images = _cycles(labels, members, needed, generator)
    # the k-th draw of a class takes the class's images k * per_class, ...: `drawn` sorted by class, in drawing order
    chosen = torch.empty(draws, per_class, dtype=torch.int64)
    chosen[drawn.argsort(stable=True)] = images.reshape(-1, per_class)
    return chosen.flatten()[:length]


def _cycles(labels: Tensor, members: Tensor, needed: Tensor, generator: torch.Generator) -> Tensor:
    """For each class in turn `needed` of its rows: shuffled cycles through its `members` rows, one after another."""
    rows = labels.argsort(stable=True)
    entries = -(-needed // members) * members  # whole cycles
    owner = torch.repeat_interleave(torch.arange(len(members)), entries)
    before = entries.cumsum(0) - entries
    place = torch.arange(len(owner)) - before[owner]
    cycle = before[owner] + place // members[owner]  # its number, growing along the list
    shuffled = (cycle + torch.rand(len(owner), generator=generator, dtype=torch.float64)).argsort()
    images = rows[(members.cumsum(0) - members)[owner] + place % members[owner]][shuffled]
    return images[place < needed[owner]]


def order(stream: Stream, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Rows of one epoch of `stream`; labels: N, on the CPU."""
    length = stream.length or len(labels)
    if stream.per_class:
        return class_aware(labels, stream.per_class, length, generator)
    if stream.weights is not None:
        return torch.multinomial(stream.weights.cpu().double(), length, replacement=True, generator=generator)
    cycles = -(-length // len(labels))
    return torch.cat([torch.randperm(len(labels), generator=generator) for _ in range(cycles)])[:length]


def batches(streams: tuple[Stream, ...], orders: list[Tensor], batch: int) -> list[list[Tensor]]:
    """Each step's rows, one tensor a stream. The streams share a batch, except those that are `own_batch`.

    Every stream is used to its end where their lengths agree; the shortest ends the epoch. A last batch of a single
    image, or of one of a `own_batch` stream, is left out: batch norm has no variance of one value.
    """
    sharing = sum(not s.own_batch for s in streams)
    sizes = [batch if s.own_batch else batch // sharing for s in streams]
    if min(sizes) < 1:
        raise ValueError(f"batch {batch} is too small for {len(streams)} streams")
    chunks = [o.split(size) for o, size in zip(orders, sizes, strict=True)]
    steps = [list(step) for step in zip(*chunks, strict=False)]
    alone = [len(rows) for rows, s in zip(steps[-1], streams, strict=True) if s.own_batch] if steps else []
    if steps and min(sum(map(len, steps[-1])), *alone, 2) < 2:
        steps.pop()
    return steps
