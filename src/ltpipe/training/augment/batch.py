"""The augmentation of a whole batch, on the device."""

import torch
from torch import Tensor

from ltpipe.interface.phases import Augment
from ltpipe.models.pixels import centre_crop
from ltpipe.training.augment import operations, random_boxes


def augment_batch(pixels: Tensor, augment: Augment, generator: torch.Generator, size: int) -> Tensor:
    """Apply what `augment` asks for, in its order: uint8 B x H x W x 3 -> B x size x size x 3.

    The result is a function of the generator's state.
    """
    pixels = random_window(_crop(pixels, augment, generator, size), augment, generator, size)
    if augment.autoaugment:
        pixels = operations.autoaugment(pixels, generator)
    if augment.randaug:
        pixels = operations.randaug(pixels, generator)
    if augment.cutout:
        place = torch.rand(2, len(pixels), generator=generator, device=pixels.device)
        pixels = operations.cutout(pixels, torch.full_like(place[0], augment.cutout), place, 0)
    return pixels


def _crop(pixels: Tensor, augment: Augment, generator: torch.Generator, size: int) -> Tensor:
    """Return random boxes at `size`, or the centre, unless `random_window` will choose a window."""
    if augment.resized_crop:
        boxes = random_boxes.draw_boxes(len(pixels), pixels.shape[1], augment.resized_crop, generator)
        return random_boxes.resize_boxes(pixels, boxes, size)
    return pixels if augment.crop else centre_crop(pixels, size)


def random_window(pixels: Tensor, augment: Augment, generator: torch.Generator, size: int) -> Tensor:
    """Take a random window after zero padding, and flip half of the images; uint8 B x H x W x 3 in and out.

    One gather for the whole batch: each image has its own offset and flip. Padding is black before normalisation.
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
    return pixels[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
