"""The gradient of a large batch in the memory of a small one: forward and backward in micro-batches.

The loss is that of the whole batch, also where it is no mean over images (weighted means, pairs of images, classes that
are present), because it is computed once, on the outputs of all micro-batches. For that, all but the last are first
passed through the network without a graph, and again with one when the gradient by their outputs is known:
    1. outputs of all micro-batches; only the last one keeps its graph
    2. the loss of the whole batch, and its gradient by the outputs and by the method's own parameters
    3. backward through the last micro-batch; then forward again and backward through each of the others
Only batch norm sees the micro-batches: each is normalised by its own statistics, and the running ones move once for
each. With frozen statistics or without batch norm, the gradient is that of the whole batch up to rounding. A network
that draws random numbers would need the same ones in the second pass: it is refused (`draws_numbers`).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ltpipe.models.network import Network, Output

Forward = Callable[[Tensor], Output]
Loss = Callable[[Output], dict[str, Tensor]]


def draws_numbers(network: torch.nn.Module) -> str | None:
    """Return the name of the first layer that draws random numbers in training (dropout, stochastic depth), or None.

    p is the share of torch's layers, drop_prob that of timm's.
    """
    for name, layer in network.named_modules():
        share = layer.p if isinstance(layer, torch.nn.modules.dropout._DropoutNd) else getattr(layer, "drop_prob", 0)
        if share:
            return name
    return None


def split(images: Tensor, count: int, parts: int) -> list[Tensor]:
    """Return at most `count` micro-batches of at least two images of each part; every count-th image goes into one.

    images: B x ..., in `parts` equal parts, one after the other (what a branch of BBN sees is a part); a micro-batch
    has its share of each. Not neighbours: a batch may hold one stream after the other, or the images of a class.
    """
    length = len(images) // parts
    count = max(min(count, length // 2), 1)
    rows = images.unflatten(0, (parts, length))
    # channels_last is the layout in which the network computes; a slice of every count-th image is not in it
    return [rows[:, i::count].flatten(0, 1).contiguous(memory_format=torch.channels_last) for i in range(count)]


def backward(network: Network, forward: Forward, batches: list[Tensor], loss: Loss) -> tuple[Output, dict[str, Tensor]]:
    """Add the gradient of the whole batch to the parameters; return its output, without a graph, and the loss's parts.

    batches: what `split` returns; the output's rows are in the order of the images that were split.
    """
    with torch.no_grad():
        early = [forward(images) for images in batches[:-1]]
    last = forward(batches[-1])
    out = _merge([*early, last])
    parts = loss(out)
    parts["loss"].backward()
    _pull(last, out, len(batches) - 1, len(batches))
    # Running statistics have seen each micro-batch once; the second pass must not show them again.
    buffers = [*network.backbone.buffers(), *network.head.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    for number, images in enumerate(batches[:-1] if last.logits.requires_grad else []):
        _pull(forward(images), out, number, len(batches))
    with torch.no_grad():
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)
    return out, parts


def _tensors(out: Output) -> list[Tensor]:
    return [value for value in (out.features, out.logits, out.experts) if value is not None]


def _merge(outs: list[Output]) -> Output:
    """Return the outputs of the micro-batches as that of the batch, as leaves of a new graph."""
    merged = []
    for values in zip(*map(_tensors, outs), strict=True):
        whole = values[0].new_empty((sum(map(len, values)), *values[0].shape[1:]))
        for number, value in enumerate(values):
            whole[number :: len(values)] = value.detach()
        merged.append(whole.requires_grad_())
    return Output(*merged)


def _pull(out: Output, whole: Output, number: int, count: int) -> None:
    """Backpropagate the whole batch's gradient through the output of micro-batch `number`."""
    pairs = [
        (value, leaf.grad[number::count])
        for value, leaf in zip(_tensors(out), _tensors(whole), strict=True)
        if value.requires_grad and leaf.grad is not None
    ]
    if pairs:
        values, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(values, gradients)
