"""The simulation: new seeds have the mean, the deviation and the correlations of the accepted ones."""

import numpy as np
import pytest

from ltpipe.evaluation.power import draw, simulate, smallest_fall

MANY = 20_000


@pytest.fixture
def values():
    """Five seeds of three comparisons: the second moves against the first, the third by itself."""
    random = np.random.RandomState(0)
    first, other = random.normal(size=(2, 5))
    return np.stack([80 + first, 60 - 3 * first, 40 + other], axis=1)


def test_new_seeds_vary_as_the_accepted_ones_and_in_the_same_way_together(values):
    drawn = draw(values, 1, np.random.RandomState(1), MANY)[:, 0]
    assert drawn.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=0.1)
    assert np.cov(drawn.T) == pytest.approx(np.cov(values.T), rel=0.05, abs=0.05)


def test_the_seeds_of_a_replicate_are_independent(values):
    first, second = np.moveaxis(draw(values, 2, np.random.RandomState(1), MANY), 1, 0)
    assert np.corrcoef(first[:, 0], second[:, 0])[0, 1] == pytest.approx(0, abs=0.03)


def test_a_comparison_that_lacks_a_seed_keeps_its_own_mean_and_deviation(values):
    values[4, 2] = np.nan
    drawn = draw(values, 1, np.random.RandomState(1), MANY)[:, 0, 2]
    assert drawn.mean() == pytest.approx(values[:4, 2].mean(), abs=0.03)
    assert drawn.std() == pytest.approx(values[:4, 2].std(ddof=1), rel=0.03)


def test_a_baseline_and_its_candidate_share_no_seed_and_lack_what_was_not_accepted(values):
    values[4, 2] = np.nan
    accepted, candidate = simulate(values, 3)
    assert accepted.shape == candidate.shape == (2000, 8, 3)
    lacks = np.isnan(accepted[0])
    assert lacks[:5].tolist() == np.isnan(values).tolist() and lacks[5:].all()
    assert np.isnan(candidate[0, :5]).all() and not np.isnan(candidate[:, 5:]).any()


def test_the_simulation_is_the_same_for_the_same_input(values):
    for first, second in zip(simulate(values, 3), simulate(values, 3), strict=True):
        assert np.array_equal(first, second, equal_nan=True)


def test_the_smallest_fall_is_the_one_that_brings_four_of_five_beyond_their_margins():
    fall, margin = np.zeros(101), np.arange(101.0)
    smallest = smallest_fall(fall, margin)
    assert smallest == 80
    assert (fall + smallest >= margin).mean() == pytest.approx(0.8, abs=0.01)
    assert smallest_fall(fall + 10, margin) == 70
