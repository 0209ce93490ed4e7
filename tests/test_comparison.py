"""All comparisons as one test: its risk, its false alarms, and what it catches, counted on draws from a normal law."""

import numpy as np
import pytest

from ltpipe.evaluation.comparison import Column, compare_all, failing, find_power, share_risk

PRIMARY = "glt.accuracy.all"
METRICS = (PRIMARY, "clt.accuracy.all", "glt.accuracy.few")
COLUMNS = [Column(run, metric, 1, 0.05) for run in ("ce", "ride", "tade") for metric in METRICS]
FIRST = np.array([column.metric == PRIMARY for column in COLUMNS])
LEVEL, DEVIATION, DRAWS = 0.95, 1.6, 2000


def noise(random, seeds, together):
    """Standard normal, DRAWS x S x 9; runs are correlated by `together` within a metric."""
    shared, own = random.normal(size=(DRAWS, seeds, 1, 3)), random.normal(size=(DRAWS, seeds, 3, 3))
    return (np.sqrt(together) * shared + np.sqrt(1 - together) * own).reshape(DRAWS, seeds, 9)


def draw(seeds, together=0.0, equal=False, worse=0.0):
    """Baselines and candidates; `worse` is what the primary metric falls by. Equal seeds are correlated by 0.9."""
    random = np.random.RandomState(seeds)
    before, after = noise(random, seeds, together), noise(random, seeds, together)
    if equal:
        after = 0.9 * before + np.sqrt(1 - 0.9**2) * after
    before, after = 80 + DEVIATION * before, 80 + DEVIATION * after - worse * FIRST
    return (before, after) if equal else apart(before, after)


def apart(before, after):
    """Baseline and candidate with other seeds."""
    gap = np.full_like(before, np.nan)
    return np.concatenate([before, gap], axis=-2), np.concatenate([gap, after], axis=-2)


def share_failing(values, columns=COLUMNS):
    before, after = (part[..., : len(columns)] for part in values)
    return failing(*compare_all(before, after, columns, PRIMARY, LEVEL)).mean()


# the risk


@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS[:1], COLUMNS[:3], COLUMNS[::3], COLUMNS[1:3], COLUMNS[1:2]])
def test_the_shares_of_the_risk_add_up_to_it(columns):
    each, together = share_risk(columns, PRIMARY, 0.05)
    assert each.sum() + together == pytest.approx(0.05)
    assert (together > 0) == (len(columns) > 1)


def test_the_primary_metric_takes_most_of_the_risk():
    each, together = share_risk(COLUMNS, PRIMARY, 0.05)
    assert each[FIRST] == pytest.approx(0.9 * 0.05 / 3)
    assert each[~FIRST] == pytest.approx(0.05 * 0.05 / 6)
    assert together == pytest.approx(0.05 * 0.05)


@pytest.mark.parametrize("equal", [False, True], ids=["other seeds", "equal seeds"])
@pytest.mark.parametrize("together", [0.0, 0.8], ids=["independent", "correlated"])
@pytest.mark.parametrize("seeds", [3, 12])
def test_unchanged_code_fails_no_more_often_than_the_level_says(seeds, together, equal):
    """Of 20,000 draws with independent and correlated runs, 12 other seeds fail in 5.1 and 3.3 %, 3 in 4.9 and 4.7 %.

    Equal seeds fail in 2.5 and 1.7 % (12) and 2.7 and 2.7 % (3). Two standard errors of 2,000 draws are 1 %.
    """
    bound = 0.06
    assert share_failing(draw(seeds, together, equal)) <= bound


@pytest.mark.parametrize(("seeds", "bound"), [(12, 0.07), (3, 0.11)])
def test_runs_with_unlike_deviations_fail_little_more_often(seeds, bound):
    """Deviations as 1, 3 and 10; measured on 20,000 draws: 12 seeds 5.5 %, 3 seeds 9.0 %."""
    unlike = np.repeat([1, 3, 10], 3)
    assert share_failing([80 + (part - 80) * unlike for part in draw(seeds)]) <= bound


def test_one_comparison_alone_has_the_whole_risk():
    """The spread form alone is exact: Student's t; measured on 2,000 draws 5.2 %."""
    assert share_failing(draw(12), COLUMNS[:1]) == pytest.approx(0.05, abs=0.015)


def test_values_that_differ_by_how_they_are_rounded_never_fail():
    before, _ = draw(3, equal=True)
    assert share_failing((np.round(before, 6), before)) == 0


# what it catches


@pytest.mark.parametrize("columns", [COLUMNS[:1], COLUMNS], ids=["one comparison", "three runs"])
def test_a_model_that_is_worse_fails_more_often_and_equal_seeds_see_more(columns):
    falls = (0, 0.5, 1, 2, 5)
    other, equal = ([share_failing(draw(12, 0.8, same, fall), columns) for fall in falls] for same in (False, True))
    for rates in (other, equal):
        assert rates == sorted(rates)
        assert rates[3] >= 0.8 and rates[4] == 1
    assert all(more > less for more, less in zip(equal[1:4], other[1:4], strict=True))
    assert equal[2] >= 0.95


def test_one_run_that_collapsed_with_one_seed_fails():
    before, after = draw(12, 0.8, equal=True)
    after[:, 3, FIRST] = 10.0
    assert share_failing((before, after)) == 1


def test_small_falls_of_all_comparisons_fail_together():
    """Each comparison falls by exactly 0.25: less than its margin, more than that of the mean of nine."""
    before, change = np.random.RandomState(0).normal(size=(2, 12, 9))
    after = before - 0.25 + 0.5 * (change - change.mean(axis=0))
    single, together = compare_all(before, after, COLUMNS, PRIMARY, LEVEL)
    assert single.fall == pytest.approx(np.full(9, 0.25))
    assert (single.fall < single.margin).all()
    assert together is not None and together.fall[0] > together.margin[0]


def test_a_metric_of_which_a_smaller_value_is_better_falls_by_rising():
    random = np.random.RandomState(0)
    before = random.normal(5, 0.1, (12, 1))
    for sign, worse in ((-1, 2.0), (1, -2.0)):
        columns = [Column("ce", PRIMARY, sign, 0.05)]
        single, _ = compare_all(*apart(before, before + worse), columns, PRIMARY, LEVEL)
        assert single.fall == pytest.approx([2.0]) and failing(single, None)
        assert not failing(*compare_all(*apart(before, before - worse), columns, PRIMARY, LEVEL))


def test_runs_lend_one_another_within_a_metric_only():
    random = np.random.RandomState(0)
    before, after = random.normal(80, 1, (2, 3, 9))
    noisier = (1 + 9 * ~FIRST) * (before - before.mean(axis=0)) + before.mean(axis=0)
    quiet, loud = (compare_all(*apart(v, after), COLUMNS, PRIMARY, LEVEL)[0].margin for v in (before, noisier))
    assert quiet[FIRST] == pytest.approx(loud[FIRST])
    assert (quiet[~FIRST] < loud[~FIRST]).all()


# the power that the report shows


@pytest.fixture(scope="module")
def accepted():
    """Twelve seeds of nine comparisons; runs move together."""
    random = np.random.RandomState(5)
    return 80 + DEVIATION * noise(random, 12, 0.8)[0]


def test_the_shown_rates_rise_and_begin_at_the_false_alarms(accepted):
    power = find_power(accepted, 12, COLUMNS, PRIMARY, LEVEL, (0.5, 1, 2, 5))
    rates = [power.false_alarms, *power.caught.values()]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(0.05, abs=0.02) and rates[-1] == 1
    assert list(power.caught) == [0.5, 1, 2, 5]


@pytest.mark.parametrize("sign", [1, -1], ids=["higher is better", "lower is better"])
@pytest.mark.parametrize("seeds", [3, 12])
def test_the_smallest_fall_is_caught_four_times_in_five(accepted, seeds, sign):
    """Against draws from the normal law with the accepted deviation; one run, because others change its margin."""
    columns, values = [Column("ce", PRIMARY, sign, 0.0)], accepted[:, :1]
    smallest = find_power(values, seeds, columns, PRIMARY, LEVEL, ()).smallest[0]
    random, deviation = np.random.RandomState(1), values.std(ddof=1)
    before = random.normal(0, deviation, (20_000, 12, 1))
    after = random.normal(-sign * smallest, deviation, (20_000, seeds, 1))
    pad = np.full_like(before, np.nan), np.full_like(after, np.nan)
    values = np.concatenate([before, pad[1]], axis=1), np.concatenate([pad[0], after], axis=1)
    assert failing(*compare_all(*values, columns, PRIMARY, LEVEL)).mean() == pytest.approx(0.8, abs=0.03)


def test_more_seeds_see_smaller_falls(accepted):
    few, many = (find_power(accepted, seeds, COLUMNS, PRIMARY, LEVEL, ()).smallest for seeds in (2, 12))
    assert (many < few).all()
