"""The centre losses of IFL and the steps of their centres, held to outputs of the authors' code on equal inputs.

The inputs are exact in float32. The authors' centres are parameters of an SGD of rate 0.5, and the weight of the loss
is divided out of their gradient.
"""

import pytest
import torch

from ltpipe.methods import ifl

FEATURES = [
    [0.9375, 0.65625, 0.59375, 0.015625],
    [0.921875, 0.671875, 0.578125, 2.25],
    [0.671875, 1.4375, 1.078125, 1.40625],
    [0.125, 1.453125, 0.21875, 0.640625],
    [1.796875, 1.328125, 0.328125, 0.375],
    [0.15625, 0.0, 0.765625, 1.015625],
    [0.5625, 0.578125, 0.078125, 0.328125],
    [0.625, 1.3125, 0.078125, 0.3125],
    [1.125, 0.640625, 1.140625, 0.390625],
    [1.5, 0.734375, 1.796875, 1.90625],
    [0.578125, 1.765625, 0.109375, 1.296875],
    [0.328125, 0.03125, 0.0625, 0.609375],
]
LABELS = [0, 3, 1, 0, 2, 0, 1, 3, 0, 2, 1, 0]
EUCLIDEAN = [
    [0.0625, 0.515625, -0.28125, 0.90625],
    [1.46875, -0.484375, -1.28125, 0.078125],
    [1.109375, 0.4375, 0.25, -0.59375],
    [-0.046875, -1.265625, 1.0625, -0.765625],
    [0.578125, -0.390625, 0.71875, -0.59375],
]
EUCLIDEAN_AFTER = [
    [0.2591146, 0.5325521, 0.06770831, 0.7513021],
    [1.252604, -0.04817709, -0.8554688, 0.3111979],
    [1.199219, 0.5364583, 0.3854167, -0.3046875],
    [0.08984375, -0.8893229, 0.9401042, -0.4244792],
    [0.578125, -0.390625, 0.71875, -0.59375],
]
COSINE = [
    [0.8125, 1.140625, 0.84375, 0.15625],
    [-0.390625, 0.234375, -1.578125, 0.5],
    [0.078125, 0.171875, -0.75, -0.90625],
    [0.15625, -1.59375, 0.375, 0.203125],
    [0.296875, -1.015625, -0.640625, -0.546875],
]
COSINE_AFTER = [
    [0.8204396, 1.125482, 0.847326, 0.2061988],
    [-0.36244, 0.2842574, -1.565676, 0.5379277],
    [0.1243979, 0.204693, -0.7433572, -0.9015343],
    [0.1777261, -1.585118, 0.3866552, 0.2328168],
    [0.296875, -1.015625, -0.640625, -0.546875],
]
KNOWN = {
    "euclidean": (EUCLIDEAN, EUCLIDEAN_AFTER, 5.667745),
    "cosine": (COSINE, COSINE_AFTER, 0.8565964),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_centre_loss_and_step_are_those_of_the_authors(kind):
    before, after, loss = KNOWN[kind]
    features, labels, centres = torch.tensor(FEATURES), torch.tensor(LABELS), torch.tensor(before)
    assert ifl.centre_loss(features, centres[labels], kind).item() == pytest.approx(loss, rel=1e-6)
    ifl.move_centres(centres, features, [(labels, 1.0)], 0.5, cosine=kind == "cosine")
    assert centres.flatten().tolist() == pytest.approx(torch.tensor(after).flatten().tolist(), abs=1e-6)


@pytest.mark.parametrize("kind", KNOWN)
def test_centres_of_mixed_images_take_one_step_on_the_mixed_loss(kind):
    before = torch.tensor(KNOWN[kind][0], dtype=torch.float64)
    features, labels = torch.tensor(FEATURES, dtype=torch.float64), torch.tensor(LABELS)
    other = labels.flip(0)
    centres = before.clone().requires_grad_()
    mixed = 0.3 * ifl.centre_loss(features, centres[labels], kind) + 0.7 * ifl.centre_loss(
        features, centres[other], kind
    )
    gradient = torch.autograd.grad(mixed, centres)[0]
    moved = before.clone()
    ifl.move_centres(moved, features, [(labels, 0.3), (other, 0.7)], 0.5, cosine=kind == "cosine")
    assert torch.allclose(moved, before - 0.5 * gradient, atol=1e-12)
