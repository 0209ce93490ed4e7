"""Margins: against Student's t worked out with scipy, and against a plain implementation of Smyth 2004."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import polygamma, psi
from scipy.stats import t

from ltpipe.evaluation.margin import compare, moderate, spread_margin, together

RISK = 0.02
ACCEPTED = np.array([80.0, 82.0, 81.0, 84.0])
NONE = np.full(4, np.nan)


def column(*parts):
    """One run's values, S x 1."""
    return np.concatenate([np.atleast_1d(part) for part in parts]).astype(float)[:, None]


def one(accepted, candidate, **options):
    """Fall, margin and accepted deviation of one run, as numbers."""
    return [float(part[0]) for part in compare(accepted, candidate, RISK, **options)]


# compare, by hand


def test_other_seeds_have_the_spread_margin():
    candidate = np.array([80.0, 79.0])
    fall, margin, deviation = one(column(ACCEPTED, NONE[:2]), column(NONE, candidate))
    assert fall == pytest.approx(81.75 - 79.5)
    assert deviation == pytest.approx(ACCEPTED.std(ddof=1))
    assert margin == pytest.approx(t.ppf(1 - RISK, 3) * deviation * np.sqrt(1 / 4 + 1 / 2))
    assert margin == pytest.approx(spread_margin(ACCEPTED.std(ddof=1), 4, 2, RISK))


def test_equal_seeds_have_the_paired_margin_at_half_the_risk():
    change = np.array([0.1, -0.1, 0.2, 0.0])
    fall, margin, _ = one(column(ACCEPTED), column(ACCEPTED - change))
    assert fall == pytest.approx(change.mean())
    assert margin == pytest.approx(t.ppf(1 - RISK / 2, 3) * change.std(ddof=1) / 2)


def test_equal_seeds_that_differ_more_than_the_accepted_ones_keep_the_spread_margin_at_half_the_risk():
    """A collapsed seed widens the paired form beyond all falls; the spread form does not see it, and so fails."""
    fall, margin, _ = one(column(ACCEPTED), column([*ACCEPTED[:3], 10.0]))
    assert margin == pytest.approx(t.ppf(1 - RISK / 2, 3) * ACCEPTED.std(ddof=1) * np.sqrt(2 / 4))
    change = ACCEPTED - [*ACCEPTED[:3], 10.0]
    assert margin < fall < t.ppf(1 - RISK / 2, 3) * change.std(ddof=1) / 2


def test_fewer_seeds_that_were_all_accepted_are_paired_and_compared_with_the_same_seeds_alone():
    candidate = column(ACCEPTED[:2] - [1.0, 1.2], NONE[:2])
    fall, margin, _ = one(column(ACCEPTED), candidate)
    assert fall == pytest.approx(1.1)
    paired = t.ppf(1 - RISK / 2, 1) * np.std([1.0, 1.2], ddof=1) / np.sqrt(2)
    spread = t.ppf(1 - RISK / 2, 3) * ACCEPTED.std(ddof=1) * np.sqrt(1 / 2 + 1 / 2)
    assert margin == pytest.approx(min(paired, spread))


@pytest.mark.parametrize("candidate", [[80, 82, 81, np.nan, 80], [80, np.nan, np.nan, np.nan, np.nan]])
def test_a_seed_that_was_not_accepted_and_a_single_seed_are_not_paired(candidate):
    values = column(candidate)
    fall, margin, _ = one(column(ACCEPTED, np.nan), values)
    n = int((~np.isnan(values)).sum())
    assert fall == pytest.approx(ACCEPTED.mean() - np.nanmean(values))
    assert margin == pytest.approx(spread_margin(ACCEPTED.std(ddof=1), 4, n, RISK))


def test_a_margin_is_never_below_the_smallest():
    assert one(column(ACCEPTED), column(ACCEPTED), smallest=0.25)[:2] == [0.0, 0.25]
    assert one(column(ACCEPTED), column(ACCEPTED))[:2] == [0.0, 0.0]


def test_a_fall_has_a_sign():
    falls = [one(column(ACCEPTED), column(ACCEPTED - shift))[0] for shift in (-1, 0, 1)]
    assert falls == pytest.approx([-1, 0, 1])


def test_one_accepted_seed_has_no_margin():
    assert np.isnan(one(column(ACCEPTED[:1], NONE), column(np.nan, ACCEPTED))[1])


@pytest.mark.parametrize(("smaller", "larger"), [((0.05, 12, 3), (0.01, 12, 3)), ((0.05, 12, 3), (0.05, 12, 1))])
def test_less_risk_and_fewer_seeds_give_a_larger_margin(smaller, larger):
    first, second = (spread_margin(1.6, known, seeds, risk) for risk, known, seeds in (smaller, larger))
    assert first < second


def test_a_stack_of_comparisons_is_each_comparison():
    random = np.random.RandomState(0)
    accepted, candidate = random.normal(80, 1, (2, 5, 4, 3))
    stacked = compare(accepted, candidate, RISK)
    for number in range(5):
        alone = compare(accepted[number], candidate[number], RISK)
        for whole, part in zip(stacked, alone, strict=True):
            assert whole[number] == pytest.approx(part)


# moderate


def draws(variances, freedom, together=0.0):
    """Values, S x G, with exactly these variances and degrees of freedom; together: share of a common part."""
    random = np.random.RandomState(0)
    seeds = max(freedom) + 1
    common = random.standard_normal(seeds)
    values = np.full((seeds, len(variances)), np.nan)
    for run, (variance, d) in enumerate(zip(variances, freedom, strict=True)):
        own = together * common[: d + 1] + (1 - together) * random.standard_normal(d + 1)
        values[: d + 1, run] = own * np.sqrt(variance) / (own.std(ddof=1) if d else 1)
    return values


def plain_smyth(values):
    """Smyth 2004, section 4, in loops, with the cap that `_distinct_runs` states; all runs have two seeds or more."""
    columns = [column[~np.isnan(column)] for column in values.T]
    variances, freedom = [c.var(ddof=1) for c in columns], [len(c) - 1 for c in columns]
    runs = len(columns)
    logs = [np.log(v) - psi(d / 2) + np.log(d / 2) for v, d in zip(variances, freedom, strict=True)]
    centre = sum(logs) / runs
    scatter = sum((e - centre) ** 2 for e in logs) / (runs - 1)
    excess = scatter - sum(float(polygamma(1, d / 2)) for d in freedom) / runs
    if excess <= 0:
        prior, weight = sum(v * d for v, d in zip(variances, freedom, strict=True)) / sum(freedom), np.inf
        blend = [prior] * runs
    else:
        weight = 2 * brentq(lambda x: float(polygamma(1, x)) - excess, 1e-3, 1e6, xtol=1e-12)
        prior = np.exp(centre + psi(weight / 2) - np.log(weight / 2))
        blend = [(weight * prior + d * v) / (weight + d) for v, d in zip(variances, freedom, strict=True)]
    squares = []
    for i in range(runs):
        for j in range(runs):
            first, second = (columns[k] - columns[k].mean() for k in (i, j))
            n = min(len(first), len(second))
            lengths = np.sqrt((first**2).sum() * (second**2).sum())
            squares += [float(first[:n] @ second[:n] / lengths) ** 2] if i != j else []
    mean = sum(freedom) / runs
    common = min(max((np.mean(squares) - 1 / mean) / (1 - 1 / mean), 0), 1)
    cap = mean * (runs / (1 + (runs - 1) * common) - 1) / 2
    return blend, [d + min(weight, cap) for d in freedom]


@pytest.mark.parametrize("together", [0.0, 0.7])
@pytest.mark.parametrize(
    ("variances", "freedom"),
    [
        ([1.0, 4.0, 0.2], [2, 2, 2]),
        ([1.0, 1.1, 0.9], [11, 11, 11]),
        ([0.19**2, 5.0**2], [11, 11]),
        ([0.01, 1.0, 100.0, 3.0], [2, 11, 4, 7]),
        ([1e-6, 1.0, 1e6], [2, 2, 2]),
    ],
)
def test_borrowing_is_that_of_smyth_2004(variances, freedom, together):
    values = draws(variances, freedom, together)
    for part, expected in zip(moderate(values), plain_smyth(values), strict=True):
        assert part == pytest.approx(np.array(expected), rel=1e-6)


def test_equal_variances_of_independent_runs_are_pooled_with_about_half_of_all_degrees_of_freedom():
    values = draws(np.full(8, 2.5), np.full(8, 11))
    variances, freedom = moderate(values)
    assert variances == pytest.approx(np.full(8, 2.5))
    assert (freedom > 0.4 * 8 * 11).all() and (freedom < 0.6 * 8 * 11).all()


def test_runs_that_are_copies_of_one_another_borrow_nothing():
    values = np.tile(draws([2.5], [11]), 4)
    variances, freedom = moderate(values)
    assert variances == pytest.approx(np.full(4, 2.5))
    assert freedom == pytest.approx(np.full(4, 11.0))


def test_one_run_borrows_nothing():
    for values in (draws([2.5], [2]), draws([2.5, 1.0], [2, 0])):
        assert [part[0] for part in moderate(values)] == pytest.approx([2.5, 2])


def test_a_run_of_one_seed_lends_and_borrows_nothing():
    values = draws([1.0, 4.0, 1.0], [2, 2, 0])
    with_it, without = moderate(values), moderate(values[:, :2])
    for part, expected in zip(with_it, without, strict=True):
        assert part[:2] == pytest.approx(expected)
    assert np.isnan(with_it[1][2])


def test_runs_whose_seeds_agree_exactly_have_a_finite_variance():
    variances, freedom = moderate(draws([0.0, 0.0, 1.0], [2, 2, 2]))
    assert np.isfinite(variances).all() and np.isfinite(freedom).all()


def test_runs_that_differ_tenfold_keep_their_own_margins():
    shape = np.linspace(-1, 1, 12)
    deviations = np.array([0.19, 5.0, 0.25, 1.1])
    accepted = 80 + shape[:, None] / shape.std(ddof=1) * deviations
    gap = np.full_like(accepted, np.nan)
    margins = compare(np.concatenate([accepted, gap]), np.concatenate([gap, accepted]), RISK).margin
    own = [spread_margin(deviation, 12, 12, RISK) for deviation in deviations]
    assert (margins / own < 1.5).all() and (margins / own > 1 / 1.5).all()


# together


@pytest.fixture
def values():
    return np.random.RandomState(0).normal([80, 60, 40], [0.2, 2.0, 5.0], (4, 3))


def test_together_is_the_mean_in_units_of_the_accepted_deviation(values):
    deviation = np.array([0.2, 2.0, 5.0])
    before, after, least = together(values, values - deviation * [1, 2, 3], deviation, np.array([0.1, 0.2, 0.3]))
    assert before - after == pytest.approx(np.full((4, 1), 2.0))
    assert least == pytest.approx([np.mean([0.1, 0.2, 0.3] / deviation)])


def test_together_does_not_depend_on_the_scale_of_a_metric(values):
    scale, other = np.array([1.0, 10.0, 0.01]), values[::-1] - 0.5
    one, scaled = (together(values * k, other * k, 2 * k, 0.1 * k) for k in (np.ones(3), scale))
    for first, second in zip(one, scaled, strict=True):
        assert first == pytest.approx(second)


def test_a_seed_that_a_comparison_lacks_is_left_out_of_all_together(values):
    missing = values.copy()
    missing[1, 2] = np.nan
    before, after, _ = together(values, missing, np.ones(3), np.zeros(3))
    assert np.isnan(after[:, 0]).tolist() == [False, True, False, False]
    assert not np.isnan(before).any()


def test_comparisons_without_a_deviation_are_left_out(values):
    after = values - [50.0, 0, 0]
    before, after, least = together(values, after, np.array([0.0, 1.0, np.nan]), np.ones(3))
    assert np.equal(before, after).all() and least == [1.0]
    assert [float(part.sum()) for part in together(values, values, np.zeros(3), np.ones(3))] == [0.0, 0.0, 0.0]
