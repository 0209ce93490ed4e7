"""The network that is trained and exported: backbone, head, and what the method owns."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Output:
    """The result of a forward pass, for B images, D features, C classes, E experts or branches.

    features: B x D, or B x E x D. logits: B x C (the mean over experts). experts: B x E x C, or None.
    """

    features: Tensor
    logits: Tensor
    experts: Tensor | None = None


class Network(nn.Module):
    """Map images B x 3 x H x W (normalised) to an Output. `own` holds the method's parameters and buffers, if any."""

    def __init__(self, backbone: nn.Module, head: nn.Module, own: nn.Module | None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.own = own if own is not None else nn.Module()

    def forward(self, images: Tensor) -> Output:
        features = self.backbone(images)
        logits = self.head(features)
        if logits.dim() == 3:
            return Output(features, logits.mean(dim=1), logits)
        return Output(features, logits)
