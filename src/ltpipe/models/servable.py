"""What is exported: raw images in, logits and probabilities out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ltpipe.models.network import Network, Output
from ltpipe.models.spec import Model


def centred(pixels: Tensor, size: int) -> Tensor:
    """The centre of B x H x W x 3 images, B x size x size x 3. Raises ValueError where they are smaller."""
    if pixels.shape[1:3] == (size, size):
        return pixels
    if min(pixels.shape[1:3]) < size:
        raise ValueError(
            f"images of {pixels.shape[1]} x {pixels.shape[2]} pixels are smaller than the network's, {size}"
        )
    top, left = ((side - size) // 2 for side in pixels.shape[1:3])
    return pixels[:, top : top + size, left : left + size]


class Servable(nn.Module):
    """uint8 B x H x W x 3 -> logits and probabilities, float32 B x C, by the method's predict().

    Larger images than the network's size give their centre.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, predict: Callable[[Output], Tensor], model: Model) -> None:
        super().__init__()
        self.network, self.predict, self.size = network, predict, model.image
        self.register_buffer("mean", 255 * torch.tensor(model.mean))
        self.register_buffer("std", 255 * torch.tensor(model.std))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        centre = centred(image, self.size).to(torch.float32)
        normal = ((centre - self.mean) / self.std).permute(0, 3, 1, 2)
        logits = self.predict(self.network(normal))
        return logits, logits.softmax(dim=-1)
