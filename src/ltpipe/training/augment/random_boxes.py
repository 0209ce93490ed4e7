"""Random resized crops on batches of uint8 images on the device; each image has its own box.

The box is that of Szegedy et al., CVPR 2015 (Inception), as torchvision draws it: an area, then an aspect ratio, ten
tries. Resampling is Pillow's bilinear filter (a triangle as wide as the reduction, hence antialiased), as two matrix
products a batch; Pillow rounds between the two, so that values differ by 1 at most. Where it differs from the usual
loader: the box is drawn from the packed centre square, not from the whole picture.
"""

import torch
from torch import Tensor

TRIES = 10
RATIO = (3 / 4, 4 / 3)


def draw_boxes(count: int, side: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """top, left, height, width of a box in each of `count` images of side x side, B x 4, int64.

    area: smallest and largest share of the image's area. Where no try fits, the box is the whole image.
    """
    device, shape = generator.device, (count, TRIES)
    share = torch.empty(shape, device=device).uniform_(*area, generator=generator)
    low, high = (torch.tensor(ratio).log().item() for ratio in RATIO)
    ratio = torch.empty(shape, device=device).uniform_(low, high, generator=generator).exp()
    place = torch.rand(2, count, generator=generator, device=device)
    height, width = ((side * side * share * r).sqrt().round().long() for r in (1 / ratio, ratio))
    fits = (height > 0) & (width > 0) & (height <= side) & (width <= side)
    first = fits.int().argmax(dim=1, keepdim=True)  # the first of equal ones
    size = torch.stack([x.gather(1, first)[:, 0] for x in (height, width)])
    size = torch.where(fits.any(dim=1), size, side)
    corner = (place * (side - size + 1)).floor().long().minimum(side - size)
    return torch.cat([corner, size]).T


def filter_weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Rows of a triangle filter that brings `length` pixels from `start` on to `size` pixels, B x size x side."""
    scale = (length / size)[:, None, None]
    support = scale.clamp(min=1)
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    position = torch.arange(side, device=start.device) + 0.5
    weight = (1 - (position - centre).abs() / support).clamp(min=0)
    inside = (position > start[:, None, None]) & (position < (start + length)[:, None, None])
    weight = torch.where(inside, weight, 0)
    return weight / weight.sum(dim=2, keepdim=True)


def resize_boxes(pixels: Tensor, box: Tensor, size: int) -> Tensor:
    """The boxes' contents at size x size; pixels: uint8 B x H x W x 3, box: B x 4 (see `draw_boxes`)."""
    _, height, width, _ = pixels.shape
    top, left, tall, wide = box.T
    rows, columns = filter_weights(top, tall, height, size), filter_weights(left, wide, width, size)
    found = torch.einsum("bih,bhwc->biwc", rows, pixels.float())
    found = torch.einsum("bjw,biwc->bijc", columns, found)
    return found.round_().clamp_(0, 255).to(torch.uint8)
