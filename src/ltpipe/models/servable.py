"""What is exported: raw images in, logits and probabilities out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ltpipe.models.network import Network, Output
from ltpipe.models.spec import Model


class Servable(nn.Module):
    """uint8 B x H x W x 3 -> logits and probabilities, float32 B x C, by the method's predict()."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, predict: Callable[[Output], Tensor], model: Model) -> None:
        super().__init__()
        self.network, self.predict = network, predict
        self.register_buffer("mean", 255 * torch.tensor(model.mean))
        self.register_buffer("std", 255 * torch.tensor(model.std))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        normal = ((image.to(torch.float32) - self.mean) / self.std).permute(0, 3, 1, 2)
        logits = self.predict(self.network(normal))
        return logits, logits.softmax(dim=-1)
