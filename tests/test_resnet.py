"""The ImageNet networks: the published numbers of parameters, and the shapes of features and experts."""

import pytest
import torch
from torch import nn

from ltpipe.backbones import resnet32
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


@pytest.mark.parametrize(("private", "published"), [("block", 27_970_624), ("stages", 45_571_136)])
def test_two_branches_of_resnet50_share_all_but_their_private_part(private, published):
    """BBN's two branches share all but the last block: 28.0 M parameters without the head."""
    with torch.device("meta"):
        whole, one = build(Config(depth=50), 2, private=private), build(Config(depth=50), 1)
    assert parameters(whole) == published
    own = published - parameters(one)
    assert [parameters(branch) for branch in whole.branches] == [own, own]


def test_a_seed_gives_the_weights_that_it_gave_before():
    """The order in which blocks are made decides their random numbers; finished runs must stay reproducible."""
    starts = []
    for build_one, config in ((resnet32.build, resnet32.Config()), (build, Config(depth=18, width=16))):
        torch.manual_seed(0)
        starts.append(next(build_one(config, 1).branches[0].parameters()).flatten()[0].item())
    assert starts == pytest.approx([-0.1645516, -0.0266934], abs=1e-6)


def test_a_whole_network_for_each_branch_shares_nothing():
    whole, one = build(Config(depth=18, width=8), 2, private="all"), build(Config(depth=18, width=8), 1)
    assert parameters(whole.trunk) == 0 and parameters(whole) == 2 * parameters(one)
    assert whole.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 2, 64)


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
