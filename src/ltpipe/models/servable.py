"""Servable: the module that is exported. Raw images in, logits and probabilities out."""

from collections.abc import Callable

from torch import Tensor, nn

from ltpipe.models.model import Model
from ltpipe.models.network import Network, Output
from ltpipe.models.pixels import channel_scale, normalise


class Servable(nn.Module):
    """Map images, uint8 B x H x W x 3, to the logits of the method's predict() and probabilities; float32 B x C.

    Images larger than the network's size are cut to their centre.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, predict: Callable[[Output], Tensor], model: Model) -> None:
        super().__init__()
        self.network, self.predict, self.size = network, predict, model.image
        self.register_buffer("mean", channel_scale(model.mean))
        self.register_buffer("std", channel_scale(model.std))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.predict(self.network(normalise(image, self.size, self.mean, self.std)))
        return logits, logits.softmax(dim=-1)
