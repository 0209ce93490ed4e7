"""Orders of training images: pure functions of labels, weights and a generator; all return int64 rows."""

import torch
from torch import Tensor

from ltpipe.methods.base import Stream


def class_aware(labels: Tensor, per_class: int, length: int, generator: torch.Generator) -> Tensor:
    """`per_class` images of each drawn class; classes shuffled in cycles, so are a class's images (length).

    Shen et al., ECCV 2016. labels: N. Every class present is drawn equally often, to within one.
    """
    classes = labels.unique()
    draws = -(-length // per_class)
    rounds = -(-draws // len(classes))
    order = torch.cat([classes[torch.randperm(len(classes), generator=generator)] for _ in range(rounds)])[:draws]
    chosen = torch.empty(draws, per_class, dtype=torch.int64)
    for label in classes:
        slots = order == label
        needed, members = int(slots.sum()) * per_class, torch.nonzero(labels == label).flatten()
        cycles = [members[torch.randperm(len(members), generator=generator)] for _ in range(-(-needed // len(members)))]
        if cycles:
            chosen[slots] = torch.cat(cycles)[:needed].reshape(-1, per_class)
    return chosen.flatten()[:length]


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
    """Each step's rows, one tensor a stream. The streams share a batch, except those that are `whole`.

    Every stream is used to its end where their lengths agree; the shortest ends the epoch. A last batch of a single
    image is left out: batch norm has no variance of one value.
    """
    sharing = sum(not s.whole for s in streams)
    sizes = [batch if s.whole else batch // sharing for s in streams]
    if min(sizes) < 1:
        raise ValueError(f"batch {batch} is too small for {len(streams)} streams")
    chunks = [o.split(size) for o, size in zip(orders, sizes, strict=True)]
    steps = [list(step) for step in zip(*chunks, strict=False)]
    if steps and sum(map(len, steps[-1])) < 2:
        steps.pop()
    return steps
