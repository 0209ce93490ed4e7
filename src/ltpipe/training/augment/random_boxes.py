"""Random resized crops of a batch of uint8 images on the device; each image has its own box.

Boxes are those of Szegedy et al., CVPR 2015 (Inception), drawn as in torchvision: an area and an aspect ratio, ten
tries. Boxes are resized with Pillow's bilinear filter, a triangle whose width grows with the reduction (antialiased),
as two matrix products for the batch. Pillow rounds between the two, so values differ by at most 1. Unlike the usual
data loader, the box is drawn from the packed centre square, not from the complete picture.
"""

import torch
from torch import Tensor

TRIES = 10
RATIO = (3 / 4, 4 / 3)  # smallest and largest width / height


def draw_boxes(count: int, side: int, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Return top, left, height and width of a random box for each of `count` images of side x side; B x 4, int64.

    area: smallest and largest share of the image's area. If none of the tries fits into the image, the box is the
    complete image.
    """
    device, shape = generator.device, (count, TRIES)
    share = torch.empty(shape, device=device).uniform_(*area, generator=generator)
    low, high = (torch.tensor(ratio).log().item() for ratio in RATIO)
    ratio = torch.empty(shape, device=device).uniform_(low, high, generator=generator).exp()
    place = torch.rand(2, count, generator=generator, device=device)
    # ratio = width / height, and height * width = share of the area
    height, width = ((side * side * share * r).sqrt().round().long() for r in (1 / ratio, ratio))
    fits = (height > 0) & (width > 0) & (height <= side) & (width <= side)
    first = fits.int().argmax(dim=1, keepdim=True)  # argmax returns the first of equal values: the first try that fits
    size = torch.stack([x.gather(1, first)[:, 0] for x in (height, width)])
    size = torch.where(fits.any(dim=1), size, side)
    corner = (place * (side - size + 1)).floor().long().minimum(side - size)  # minimum: the product may round up
    return torch.cat([corner, size]).T


def filter_weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Return triangle filters that resize `length` pixels from `start` on to `size` pixels; B x size x side.

    start, length: B. Row i holds the weight of each of the `side` pixels in output pixel i; the weights sum to 1.
    """
    scale = (length / size)[:, None, None]
    support = scale.clamp(min=1)  # when enlarging, the triangle keeps the width of ordinary bilinear interpolation
    centre = start[:, None, None] + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    position = torch.arange(side, device=start.device) + 0.5
    weight = (1 - (position - centre).abs() / support).clamp(min=0)
    inside = (position > start[:, None, None]) & (position < (start + length)[:, None, None])
    weight = torch.where(inside, weight, 0)
    return weight / weight.sum(dim=2, keepdim=True)


def resize_boxes(pixels: Tensor, box: Tensor, size: int) -> Tensor:
    """Return the contents of the boxes, resized: uint8 B x H x W x 3 -> B x size x size x 3. box: see `draw_boxes`."""
    _, height, width, _ = pixels.shape
    top, left, tall, wide = box.T
    rows, columns = filter_weights(top, tall, height, size), filter_weights(left, wide, width, size)
    resized = torch.einsum("bih,bhwc->biwc", rows, pixels.float())
    resized = torch.einsum("bjw,biwc->bijc", columns, resized)
    return resized.round_().clamp_(0, 255).to(torch.uint8)
