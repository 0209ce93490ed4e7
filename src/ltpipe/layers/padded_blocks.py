"""Basic residual blocks whose shortcuts have no parameters (option A of He et al., CVPR 2016), for CIFAR's ResNets."""

from torch import Tensor, nn
from torch.nn import functional as F


def conv3x3(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    """Return a padded 3 x 3 convolution without a bias, Kaiming normal initialisation."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def cifar_stem(outputs: int) -> nn.Module:
    """Return convolution, batch norm and ReLU at the full resolution of the images."""
    return nn.Sequential(conv3x3(3, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class PaddedBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which is subsampled and padded with zero channels if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU())
        self.second = nn.Sequential(conv3x3(outputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        short = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.more:  # zero channels, half of them before the others and half after
            short = F.pad(short, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(self.second(self.first(x)) + short)


def padded_stage(inputs: int, outputs: int, blocks: int, stride: int) -> list[nn.Module]:
    """Return the stage's `blocks` blocks; only the first has `stride`."""
    # made first: the order of making decides which random numbers a weight starts from, and with them every result
    rest: list[nn.Module] = [PaddedBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
    return [PaddedBlock(inputs, outputs, stride), *rest]
