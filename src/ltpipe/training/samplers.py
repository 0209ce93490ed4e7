"""Orders of training images: pure functions of labels, weights and a generator; all return rows, int64."""

import torch
from torch import Tensor

from ltpipe.interface.streams import Stream


def draw_class_aware(labels: Tensor, per_class: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw classes in turn, and `per_class` images of each drawn class; returns `length` rows (Shen et al., ECCV 2016).

    labels: N. The classes come in shuffled cycles, and so do the images of a class: the numbers of draws of any two
    classes differ by at most 1, and so do those of any two images of a class. (The last class may be cut short.)
    """
    # No loop over classes, of which there may be thousands: one sort for the cycles of classes, one for the images.
    classes, members = labels.unique(return_counts=True)
    draws = -(-length // per_class)  # rounded up, as below
    rounds = -(-draws // len(classes))
    drawn = torch.rand(rounds, len(classes), generator=generator).argsort(dim=1).flatten()[:draws]
    needed = torch.bincount(drawn, minlength=len(classes)) * per_class
    images = _cycle_through_images(labels, members, needed, generator)
    # `images` is sorted by class, and so is drawn.argsort(stable=True), with the draws of a class in drawing order: the
    # k-th draw of a class gets its images k * per_class up to (k + 1) * per_class.
    chosen = torch.empty(draws, per_class, dtype=torch.int64)
    chosen[drawn.argsort(stable=True)] = images.reshape(-1, per_class)
    return chosen.flatten()[:length]


def _cycle_through_images(labels: Tensor, members: Tensor, needed: Tensor, generator: torch.Generator) -> Tensor:
    """Return `needed` rows of each class, class after class: shuffled cycles through the `members` rows of a class."""
    rows = labels.argsort(stable=True)
    entries = -(-needed // members) * members  # images of complete cycles, of which the last may be cut below
    owner = torch.repeat_interleave(torch.arange(len(members)), entries)  # the class of each entry
    before = entries.cumsum(0) - entries  # the first entry of each class
    place = torch.arange(len(owner)) - before[owner]  # of the entry within its class
    # A number for each cycle that grows along the list. Numbers plus random fractions, sorted, shuffle within cycles;
    # float64, because float32 would lose the fractions beside numbers of a million.
    cycle = before[owner] + place // members[owner]
    shuffled = (cycle + torch.rand(len(owner), generator=generator, dtype=torch.float64)).argsort()
    images = rows[(members.cumsum(0) - members)[owner] + place % members[owner]][shuffled]
    return images[place < needed[owner]]


def rows_at(weights: Tensor, shares: Tensor) -> Tensor:
    """Return the row in which each share of the total weight lies: for uniform shares, rows with probability ~ weight.

    weights: N, any number of rows (torch.multinomial, which draws the same rows, stops at 2^24). shares: in [0, 1).
    A row of weight 0 is never returned. Raises ValueError if a weight is negative or not finite, or if all are 0.
    """
    ends = weights.double().cumsum(0)
    total = float(ends[-1])
    if not (weights.min() >= 0 and 0 < total < float("inf")):
        raise ValueError(f"sampling weights must be finite, >= 0 and not all 0: smallest {weights.min()}, sum {total}")
    # `right` is the first row that ends after the point: never one of weight 0, not even at the point 0. The largest
    # share below 1, times the total, rounds to less than the total, so that there is such a row.
    return torch.searchsorted(ends, shares.double() * total, right=True)


def draw_order(stream: Stream, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the rows of an epoch of `stream`. labels: N, on the CPU."""
    length = stream.length or len(labels)
    if stream.per_class:
        return draw_class_aware(labels, stream.per_class, length, generator)
    if stream.weights is not None:
        return rows_at(stream.weights.cpu(), torch.rand(length, dtype=torch.float64, generator=generator))
    cycles = -(-length // len(labels))
    return torch.cat([torch.randperm(len(labels), generator=generator) for _ in range(cycles)])[:length]


def split_into_steps(streams: tuple[Stream, ...], orders: list[Tensor], batch: int) -> list[list[Tensor]]:
    """Return the rows of each step, a tensor for each stream.

    The streams share a batch equally, except those with `own_batch`, which fill one each. The shortest stream ends the
    epoch. The last step is left out if it has a single image, in total or in a stream with `own_batch`.
    Raises ValueError if the batch is smaller than the number of streams that share it.
    """
    sharing = sum(not s.own_batch for s in streams)
    sizes = [batch if s.own_batch else batch // sharing for s in streams]
    if min(sizes) < 1:
        raise ValueError(f"batch {batch} is too small for {len(streams)} streams")
    chunks = [o.split(size) for o, size in zip(orders, sizes, strict=True)]
    steps = [list(step) for step in zip(*chunks, strict=False)]
    # Batch norm cannot train on a single image: one value has no variance.
    own_sizes = [len(rows) for rows, s in zip(steps[-1], streams, strict=True) if s.own_batch] if steps else []
    if steps and min(sum(map(len, steps[-1])), *own_sizes, 2) < 2:
        steps.pop()
    return steps
