"""Pixels as the network takes them: one centre crop and one normalisation for training, export and features."""

from collections.abc import Sequence

import torch
from torch import Tensor


def centre_crop(pixels: Tensor, size: int) -> Tensor:
    """Return the centre of images B x H x W x 3 as B x size x size x 3. Raises ValueError if they are smaller."""
    if pixels.shape[1:3] == (size, size):
        return pixels
    if min(pixels.shape[1:3]) < size:
        raise ValueError(
            f"images of {pixels.shape[1]} x {pixels.shape[2]} pixels are smaller than the network's, {size}"
        )
    top, left = ((side - size) // 2 for side in pixels.shape[1:3])
    return pixels[:, top : top + size, left : left + size]


def channel_scale(values: Sequence[float], device: torch.device | None = None) -> Tensor:
    """Return a mean or standard deviation of pixels in 0..1 in units of 0..255, as `normalise` takes it; 3."""
    return 255 * torch.tensor(values, device=device)


def normalise(pixels: Tensor, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """Return (x - mean) / std of the images' centre: uint8 B x H x W x 3 -> float32 B x 3 x size x size.

    The result is channels-last in memory. mean, std: 3, in units of 0..255 (see `channel_scale`).
    """
    return ((centre_crop(pixels, size).to(torch.float32) - mean) / std).permute(0, 3, 1, 2)
