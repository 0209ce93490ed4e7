"""Augmentation of a batch of images, on the device."""

import torch
from torch import Tensor

from ltpipe.interface.phases import Augment
from ltpipe.models.pixels import centre_crop
from ltpipe.training.augment import operations, random_boxes


def augment_batch(pixels: Tensor, augment: Augment, generator: torch.Generator, size: int) -> Tensor:
    """Augment a batch as `augment` says, in the order of its fields: uint8 B x H x W x 3 -> B x size x size x 3.

    All random numbers come from `generator`.
    """
    pixels = random_window(_crop(pixels, augment, generator, size), augment, generator, size)
    if augment.rotate:
        degrees = torch.empty(len(pixels), device=pixels.device).uniform_(-1, 1, generator=generator) * augment.rotate
        pixels = operations.rotate(pixels, degrees)
    if augment.autoaugment:
        pixels = operations.autoaugment(pixels, generator)
    if augment.randaug:
        pixels = operations.randaug(pixels, generator)
    if augment.cutout:
        place = torch.rand(2, len(pixels), generator=generator, device=pixels.device)
        pixels = operations.cutout(pixels, torch.full_like(place[0], augment.cutout), place, 0)
    return pixels


def _crop(pixels: Tensor, augment: Augment, generator: torch.Generator, size: int) -> Tensor:
    """Return random boxes resized to `size`, or the centre; or `pixels` unchanged if `random_window` crops them."""
    if augment.resized_crop:
        boxes = random_boxes.draw_boxes(len(pixels), pixels.shape[1], augment.resized_crop, generator)
        return random_boxes.resize_boxes(pixels, boxes, size)
    return pixels if augment.crop else centre_crop(pixels, size)


def random_window(pixels: Tensor, augment: Augment, generator: torch.Generator, size: int) -> Tensor:
    """Take a random window after zero padding, and flip half of the images; uint8 B x H x W x 3 in and out.

    Each image has its own offset and flip. Without augment.crop, images are already of the given size. The padding is
    0, black, before normalisation.
    """
    count, device, pad = len(pixels), pixels.device, augment.crop
    rows = torch.arange(size, device=device).expand(count, size)
    columns = rows
    if augment.flip:
        flip = torch.rand(count, 1, generator=generator, device=device) < 0.5
        columns = torch.where(flip, columns.flip(1), columns)
    if pad:
        free = pixels.shape[1] + 2 * pad - size
        pixels = torch.nn.functional.pad(pixels, (0, 0, pad, pad, pad, pad))
        shift = torch.randint(0, free + 1, (2, count, 1), generator=generator, device=device)
        rows, columns = rows + shift[0], columns + shift[1]
    # A single gather for the batch, by B x 1 x 1, B x size x 1 and B x 1 x size indices.
    return pixels[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
