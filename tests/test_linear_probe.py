"""linear_probe: the head of least loss on features that are computed once, and nothing else changed."""

import numpy as np
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from ltpipe.methods.linear_probe import STRENGTHS, Linear, fit_head, unstandardised
from ltpipe.training import loop


@pytest.fixture
def problem():
    """Features of three overlapping classes of 60, 25 and 8 images, standardised, and labels."""
    random = np.random.RandomState(0)
    labels = np.repeat([0, 1, 2], [60, 25, 8])
    features = random.randn(len(labels), 6) + 0.8 * np.eye(3, 6)[labels]
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def zeros(features=6):
    return Linear(torch.zeros(3, features), torch.zeros(3))


def test_the_head_is_that_of_sklearns_logistic_regression(problem):
    features, labels = problem
    head = fit_head(features, labels, torch.zeros(3), 0.02, zeros(), bias=True)
    # sklearn's loss is the sum over images plus 1 / (2 C) ||W||^2
    other = LogisticRegression(C=1 / (0.02 * len(labels)), tol=1e-8, max_iter=1000).fit(features, labels)
    ours = (features @ head.weight.T + head.bias).softmax(dim=1).numpy()
    np.testing.assert_allclose(ours, other.predict_proba(features.numpy()), atol=2e-3)


def test_the_adjusted_head_has_no_gradient_left_at_the_adjusted_loss(problem):
    features, labels = problem
    shift = torch.bincount(labels).double().div(len(labels)).log().float()
    head = fit_head(features, labels, shift, 0.01, zeros(), bias=True)
    weight = head.weight.clone().requires_grad_()
    (F.cross_entropy(features @ weight.T + head.bias + shift, labels) + 0.005 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-4
    plain = fit_head(features, labels, torch.zeros(3), 0.01, zeros(), bias=True)

    def rare(of):
        return int(((features @ of.weight.T + of.bias).argmax(dim=1) == 2).sum())

    assert rare(head) > rare(plain)  # the rare class is predicted more often


def test_a_head_without_bias_has_none(problem):
    head = fit_head(*problem, torch.zeros(3), 0.01, zeros(), bias=False)
    assert not head.bias.any() and head.weight.any()


def test_a_head_of_standardised_features_answers_alike_on_plain_ones(problem):
    features, _ = problem
    head = Linear(torch.randn(3, 6), torch.randn(3))
    mean, std = torch.randn(6), torch.rand(6) + 0.5
    plain = unstandardised(head, mean, std)
    torch.testing.assert_close(
        (features * std + mean) @ plain.weight.T + plain.bias, features @ head.weight.T + head.bias
    )


def test_the_backbone_stays_as_it_is_and_every_seed_finds_the_same_head(tmp_path):
    start = tiny.cross_entropy()
    runs = [loop.fit(tiny.task(tmp_path / str(seed), "linear_probe", start=start, seed=seed)) for seed in (0, 1)]
    first, second = (weights for weights, *_ in runs)
    backbone = [name for name in first if name.startswith("backbone.")]
    assert backbone and all(torch.equal(first[name], start[name]) for name in backbone)
    assert tiny.same(first, second)
    assert not torch.equal(first["head.weight"], start["head.weight"])
    assert runs[0][1] == [] and runs[0][2]["l2"] in STRENGTHS


def test_a_stated_weight_decay_is_used(tmp_path):
    facts = loop.fit(tiny.task(tmp_path, "linear_probe", {"l2": 0.3}))[2]
    assert facts["l2"] == 0.3
