"""The paired interval: against closed forms and scipy, and how often it holds the truth, counted on draws."""

import numpy as np
import pytest
from scipy.stats import beta, bootstrap

from ltpipe.evaluation.paired import Drawing, at_most, compare_sides, replicate


def answers(sizes, times=1, seed=0, worse=0.06, better=0.04):
    """Labels, originals and two models' answers; each original is `times` pictures that both models answer alike."""
    originals = np.arange(sum(sizes)).repeat(times)
    label = np.arange(len(sizes)).repeat(np.array(sizes) * times)
    chance = np.random.default_rng(seed).random(sum(sizes)).repeat(times)
    return label, originals, chance >= better, ~((chance >= better) & (chance < better + worse))


def test_rates_are_those_of_the_pictures():
    label, originals = np.array([0, 0, 0, 1]), np.arange(4)
    a, b = np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 1], bool)
    found = compare_sides(label, originals, a, b, Drawing())
    assert found["accuracy"][:3] == pytest.approx((50, 50, 0))
    assert found["recall"][:3] == pytest.approx((100 / 3, 200 / 3, 100 / 3))


@pytest.mark.parametrize("sizes", [(40, 40), (3,) * 10])
def test_the_spread_of_the_replicates_is_the_stratified_standard_error(sizes):
    """Of a sum over classes: sqrt(sum of m * s^2), s with m - 1 in the denominator, also where m is small."""
    label, originals, a, b = answers(sizes, worse=0.4, better=0.2)
    gain = b.astype(int) - a.astype(int)
    gains, counts = replicate(label, originals, gain, Drawing(20_000))
    error = np.sqrt(sum(m * np.var(gain[label == c], ddof=1) for c, m in enumerate(sizes)))
    assert gains.sum(axis=1).std() == pytest.approx(error, rel=0.03)
    assert np.allclose(counts, sizes)


def test_the_interval_of_one_class_is_scipy_s():
    """Scipy draws m originals, not m - 1, which of 400 makes no difference."""
    label, originals, a, b = answers((400,))
    gain = 100.0 * (b.astype(int) - a.astype(int))
    interval = bootstrap((gain,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    found = compare_sides(label, originals, a, b, Drawing(5000))["accuracy"]
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.3)


@pytest.mark.parametrize("times", [1, 6], ids=["an original is one picture", "an original is six pictures"])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(times):
    """True difference: -2 points. 95 % of 300 draws, give or take three standard errors of 1.3 %; measured 94.3 %."""
    held = 0
    for seed in range(300):
        found = compare_sides(*answers((40,) * 5, times, seed), Drawing(400, 0.95, seed))["accuracy"]
        held += found.low <= -2 + 1e-9 and found.high >= -2 - 1e-9
    assert 0.90 <= held / 300 <= 0.985


def test_pictures_of_one_original_add_no_certainty():
    once, six = (compare_sides(*answers((40, 40), times), Drawing())["accuracy"] for times in (1, 6))
    assert once == pytest.approx(six)


def test_equal_seeds_draw_equally_and_others_do_not():
    first, again, other = (compare_sides(*answers((30, 30)), Drawing(200, 0.95, seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_equal_answers_have_no_interval_but_a_bound():
    label, originals, a, _ = answers((30,))
    found = compare_sides(label, originals, a, a, Drawing())["accuracy"]
    assert (found.difference, found.low, found.high) == (0, None, None)
    assert at_most(30, 0.95) == pytest.approx(100 * beta.ppf(0.95, 1, 30))


def test_a_class_with_one_original_is_no_error():
    found = compare_sides(np.array([0]), np.array([0]), np.array([True]), np.array([False]), Drawing())
    assert found["recall"] == (100, 0, -100, None, None), "one original says nothing of others"
