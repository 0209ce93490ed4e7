"""The ImageNet networks: the published numbers of parameters, and the shapes of features and experts."""

import pytest
import torch
from torch import nn

from ltpipe.backbones.resnet import Config, build
from ltpipe.config.spec import Refused, parse

NEXT = {"cardinality": 32, "group": 4}


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("options", "published"),
    [
        ({"depth": 18}, 11_689_512),
        ({"depth": 34}, 21_797_672),
        ({"depth": 50}, 25_557_032),
        ({"depth": 50, **NEXT}, 25_028_904),
        ({"depth": 101}, 44_549_160),
        ({"depth": 152}, 60_192_808),
    ],
)
def test_parameters_with_1000_classes_are_the_published_ones(options, published):
    with torch.device("meta"):
        network = build(Config(**options), 1)
        head = nn.Linear(network.features, 1000)
    assert parameters(network) + parameters(head) == published


def test_resnet18_for_64_pixels_has_the_same_stages_and_a_smaller_stem():
    with torch.device("meta"):
        small, large = (parameters(build(Config(depth=18, stem=stem), 1)) for stem in ("small", "large"))
    assert large - small == 64 * 3 * (49 - 9)


@pytest.mark.parametrize(("stem", "image"), [("small", 32), ("large", 64)])
def test_features_have_the_stated_width(stem, image):
    network = build(Config(depth=18, stem=stem, width=8), 1).eval()
    assert network(torch.zeros(2, 3, image, image)).shape == (2, network.features) == (2, 64)


def test_experts_of_resnext50_have_the_features_of_ride():
    with torch.device("meta"):
        network = build(Config(depth=50, **NEXT), 3, 0.75)
        out = network.eval()(torch.zeros(1, 3, 64, 64))
    assert network.features == 1536
    assert out.shape == (1, 3, 1536)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 18, **NEXT}, "depth 18 has no bottlenecks"),
        ({"depth": 20}, "18, 34, 50, 101 or 152"),
        ({"width": 10}, "multiple of 4"),
        ({"stem": "tiny"}, "'small' or 'large'"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(Refused, match=message):
        parse(Config, options, "model.options")
