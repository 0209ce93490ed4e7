"""Images on the device as uint8, turned into batches there: rows, random crop, flip, normalisation."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ltpipe.methods.base import Augment
from ltpipe.models.spec import Model
from ltpipe.training import operations


@dataclass(frozen=True)
class Images:
    """One split, resident on the device. pixels: N x H x W x 3, uint8. labels: N. groups: N, index into GROUPS."""

    pixels: Tensor
    labels: Tensor
    groups: Tensor

    @classmethod
    def of(cls, pixels: np.ndarray, labels: np.ndarray, groups: np.ndarray, device: torch.device) -> "Images":
        """From arrays of equal length."""
        return cls(*(torch.tensor(a, device=device) for a in (pixels, labels, groups)))


def normalise(pixels: Tensor, model: Model) -> Tensor:
    """uint8 B x H x W x 3 -> float32 B x 3 x H x W (channels last in memory), (x / 255 - mean) / std."""
    mean = torch.tensor(model.mean, device=pixels.device) * 255
    std = torch.tensor(model.std, device=pixels.device) * 255
    return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)


def augmented(pixels: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """What `augment` asks for, in its order; uint8 B x H x W x 3 in and out. A function of the generator's state."""
    pixels = moved(pixels, augment, generator)
    if augment.autoaugment:
        pixels = operations.autoaugment(pixels, generator)
    if augment.randaug:
        pixels = operations.randaug(pixels, generator)
    if augment.cutout:
        place = torch.rand(2, len(pixels), generator=generator, device=pixels.device)
        pixels = operations.cutout(pixels, torch.full_like(place[0], augment.cutout), place, 0)
    return pixels


def moved(pixels: Tensor, augment: Augment, generator: torch.Generator) -> Tensor:
    """Random crop after zero padding, random horizontal flip; uint8 B x H x W x 3 in and out.

    One gather for the whole batch: each image has its own offset and flip. Padding is black before normalisation.
    """
    count, height, width, _ = pixels.shape
    device, pad = pixels.device, augment.crop
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    if augment.flip:
        flip = torch.rand(count, 1, generator=generator, device=device) < 0.5
        columns = torch.where(flip, columns.flip(1), columns)
    if pad:
        pixels = torch.nn.functional.pad(pixels, (0, 0, pad, pad, pad, pad))
        shift = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator, device=device)
        rows, columns = rows + shift[0], columns + shift[1]
    return pixels[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
