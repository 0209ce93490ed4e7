"""Basic residual blocks with parameter-free shortcuts (option A)."""

from torch import Tensor, nn
from torch.nn import functional as F


def convolution(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    """3 x 3, padded, no bias, Kaiming normal."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(layer.weight)
    return layer


def stem(outputs: int) -> nn.Module:
    """Convolution, batch norm, ReLU at full resolution."""
    return nn.Sequential(convolution(3, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class Block(nn.Module):
    """Two 3 x 3 convolutions; where the shape changes the shortcut is subsampled and padded with zero channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(convolution(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU())
        self.second = nn.Sequential(convolution(outputs, outputs, 1), nn.BatchNorm2d(outputs))
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        short = x[:, :, :: self.stride, :: self.stride] if self.stride > 1 else x
        if self.more:
            short = F.pad(short, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(self.second(self.first(x)) + short)


def stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Module:
    """`blocks` blocks, the first with `stride`."""
    rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(inputs, outputs, stride), *rest)
