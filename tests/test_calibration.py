"""Expected calibration error against a case worked out by hand and against a naive loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltpipe.evaluation.metrics.ece import BINS, ece, reliability

# thousandths and no multiple of a bin's width, so that no confidence sits on an edge
answers = st.lists(st.tuples(st.integers(0, 999), st.booleans()), min_size=1, max_size=60).map(
    lambda pairs: (np.array([p / 1000 + 0.0001 for p, _ in pairs]), np.array([c for _, c in pairs]))
)


def naive(confidence, correct, bins):
    """The definition of Guo et al., image by image."""
    total = 0.0
    for b in range(bins):
        inside = [i for i, p in enumerate(confidence) if b / bins < p <= (b + 1) / bins]
        if inside:
            accuracy = sum(bool(correct[i]) for i in inside) / len(inside)
            trust = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - trust)
    return 100 * total


def test_a_case_worked_out_by_hand():
    # bin (0.9, 1]: accuracy 100, confidence 95, 2 images; bin (0.5, 0.6]: accuracy 0, confidence 54, 3 images
    confidence = np.array([0.96, 0.94, 0.54, 0.53, 0.55])
    correct = np.array([True, True, False, False, False])
    assert ece(confidence, correct, bins=10) == pytest.approx(0.4 * 5 + 0.6 * 54)


@given(answers, st.integers(1, 20))
def test_it_equals_a_naive_loop(cases, bins):
    assert ece(*cases, bins=bins) == pytest.approx(naive(*cases, bins), abs=1e-9)


def test_full_confidence_has_error_0_if_right_and_100_if_wrong():
    assert ece(np.ones(4), np.ones(4, bool)) == 0
    assert ece(np.ones(4), np.zeros(4, bool)) == 100


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    confidence = np.array([0.0, 0.2, 0.4, 1.0])
    assert [b["n"] for b in reliability(confidence, np.ones(4, bool), bins=5)] == [2, 1, 1]


@pytest.mark.parametrize("edge", range(1, BINS + 1))
def test_every_edge_of_the_default_bins_belongs_to_the_bin_below(edge):
    confidence = np.array([edge / BINS - 0.001, edge / BINS])
    assert len(reliability(confidence, np.ones(2, bool))) == 1


def test_an_empty_bin_is_absent():
    assert reliability(np.array([0.95, 0.96]), np.array([True, False]), bins=10) == [
        {"n": 2, "confidence": pytest.approx(95.5), "accuracy": 50.0}
    ]


@given(answers)
def test_the_bins_hold_every_image_and_average_to_the_accuracy(cases):
    bins = reliability(*cases)
    assert sum(b["n"] for b in bins) == len(cases[0])
    assert sum(b["n"] * b["accuracy"] for b in bins) / len(cases[0]) == pytest.approx(100 * cases[1].mean())


def test_it_does_not_depend_on_the_order_of_the_images():
    random = np.random.RandomState(0)
    confidence, correct, order = random.rand(50), random.rand(50) < 0.7, random.permutation(50)
    assert ece(confidence[order], correct[order]) == pytest.approx(ece(confidence, correct), abs=1e-9)
