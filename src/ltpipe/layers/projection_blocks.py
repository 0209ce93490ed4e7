"""Residual blocks with projection shortcuts (option B), basic and bottleneck, as in ImageNet's ResNets."""

from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a padded size x size convolution without a bias, followed by batch norm.

    Kaiming normal initialisation by the number of outputs (fan_out).
    """
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1 x 1 convolution if the shape changes, else the identity."""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def basic_block(inputs: int, planes: int, stride: int) -> nn.Module:
    """Return a block of two 3 x 3 convolutions with `planes` outputs."""
    body = nn.Sequential(conv_norm(inputs, planes, 3, stride), nn.ReLU(), conv_norm(planes, planes, 3))
    return Residual(body, inputs, planes, stride)


def bottleneck_block(inputs: int, planes: int, stride: int, cardinality: int, group: int) -> nn.Module:
    """Return a block of 1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions with 4 * planes outputs.

    For 64 planes, the 3 x 3 convolution has `cardinality` groups of `group` channels, and in proportion for more
    planes. A ResNet has one group of 64.
    """
    inner = planes * group // 64 * cardinality
    body = nn.Sequential(
        conv_norm(inputs, inner, 1),
        nn.ReLU(),
        conv_norm(inner, inner, 3, stride, cardinality),
        nn.ReLU(),
        conv_norm(inner, 4 * planes, 1),
    )
    return Residual(body, inputs, 4 * planes, stride)


def imagenet_stem(outputs: int, large: bool) -> nn.Module:
    """Return the first layers: for `large` images 7 x 7 of stride 2 and 3 x 3 max pooling of stride 2.

    Otherwise 3 x 3 at the full resolution of the images.
    """
    if not large:
        return nn.Sequential(conv_norm(3, outputs, 3), nn.ReLU())
    return nn.Sequential(conv_norm(3, outputs, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
