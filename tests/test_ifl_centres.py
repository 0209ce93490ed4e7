"""The centre losses of IFL and the steps of their centres, held to outputs of the authors' code on equal inputs.

The inputs are exact in float32. The authors' centres are parameters of an SGD of rate 0.5, and the weight of the loss
is divided out of their gradient.
"""

import pytest
import torch
from authors import FIGURES, inputs

from ltpipe.methods import ifl

KINDS = ("euclidean", "cosine")


def known(kind, dtype=torch.float32):
    """Return features, labels and the centres before the step."""
    features, labels = inputs("ifl_centres", "features", "labels")
    return features.to(dtype), labels, torch.tensor(FIGURES["ifl_centres"][kind]["centres"], dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_centre_loss_and_step_are_those_of_the_authors(kind):
    features, labels, centres = known(kind)
    figures = FIGURES["ifl_centres"][kind]
    assert ifl.centre_loss(features, centres[labels], kind).item() == pytest.approx(figures["loss"], rel=1e-6)
    ifl.move_centres(centres, features, [(labels, 1.0)], 0.5, cosine=kind == "cosine")
    assert centres.flatten().tolist() == pytest.approx(
        torch.tensor(figures["centres_after_step"]).flatten().tolist(), abs=1e-6
    )


@pytest.mark.parametrize("kind", KINDS)
def test_centres_of_mixed_images_take_one_step_on_the_mixed_loss(kind):
    features, labels, before = known(kind, torch.float64)
    other = labels.flip(0)
    centres = before.clone().requires_grad_()
    mixed = 0.3 * ifl.centre_loss(features, centres[labels], kind) + 0.7 * ifl.centre_loss(
        features, centres[other], kind
    )
    gradient = torch.autograd.grad(mixed, centres)[0]
    moved = before.clone()
    ifl.move_centres(moved, features, [(labels, 0.3), (other, 0.7)], 0.5, cosine=kind == "cosine")
    assert torch.allclose(moved, before - 0.5 * gradient, atol=1e-12)
