"""Residual blocks with projection shortcuts (option B), basic and bottleneck, as ImageNet's ResNets have them."""

from torch import Tensor, nn
from torch.nn import functional as F


def convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """size x size, padded, no bias, Kaiming normal by outputs; batch norm."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1 x 1 convolution where the shape changes."""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def basic(inputs: int, planes: int, stride: int) -> nn.Module:
    """Two 3 x 3 convolutions; `planes` outputs."""
    body = nn.Sequential(convolution(inputs, planes, 3, stride), nn.ReLU(), convolution(planes, planes, 3))
    return Residual(body, inputs, planes, stride)


def bottleneck(inputs: int, planes: int, stride: int, cardinality: int, group: int) -> nn.Module:
    """1 x 1, 3 x 3 (carries the stride), 1 x 1; 4 * planes outputs.

    Of 64 planes, the 3 x 3 convolution has `cardinality` groups of `group` channels (ResNet: one of 64).
    """
    inner = planes * group // 64 * cardinality
    body = nn.Sequential(
        convolution(inputs, inner, 1),
        nn.ReLU(),
        convolution(inner, inner, 3, stride, cardinality),
        nn.ReLU(),
        convolution(inner, 4 * planes, 1),
    )
    return Residual(body, inputs, 4 * planes, stride)


def stem(outputs: int, large: bool) -> nn.Module:
    """large: 7 x 7 of stride 2 and 3 x 3 max pooling of stride 2; else 3 x 3 at full resolution."""
    if not large:
        return nn.Sequential(convolution(3, outputs, 3), nn.ReLU())
    return nn.Sequential(convolution(3, outputs, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
