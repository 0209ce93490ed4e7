"""The gate's margin: unchanged code passes as often as the level says, and a clearly worse model fails."""

import numpy as np
import pytest

from ltpipe.evaluation.margin import LEVEL, cluster_sums, margins, simulate

CLUSTERS, EACH, SEEDS = 100, 3, 3
IMAGES = CLUSTERS * EACH
OF = np.arange(CLUSTERS).repeat(EACH)
MEMBER = {"all": np.ones(IMAGES, bool), "few": np.arange(IMAGES) < IMAGES // 4}
SIZES = {m: np.bincount(OF[member], minlength=CLUSTERS).astype(float) for m, member in MEMBER.items()}
SMALLEST = {m: 100 / member.sum() for m, member in MEMBER.items()}


def correct(random, difficulty, seed_effect, worse=0.0):
    """Right or wrong, S x N: clusters that are easy or hard, seeds that are lucky or not, and chance."""
    luck = random.normal(0, seed_effect, (SEEDS, 1))
    chance = 1 / (1 + np.exp(-(difficulty[OF] + luck - worse)))
    return random.rand(SEEDS, IMAGES) < chance


def table(cells):
    """Run -> metric -> correct images by cluster and seed."""
    return {
        run: {metric: cluster_sums(c, member, OF, CLUSTERS) for metric, member in MEMBER.items()}
        for run, c in cells.items()
    }


def rate(c, metric):
    return 100 * c[:, MEMBER[metric]].mean()


def passing(trials, runs, seed_effect, worse=0.0):
    """Share of candidates whose every metric of every run stays within its margin of the baseline."""
    random = np.random.RandomState(0)
    passed = 0
    for trial in range(trials):
        difficulty = random.normal(1.0, 1.5, (runs, CLUSTERS))
        before = {str(run): correct(random, d, seed_effect) for run, d in enumerate(difficulty)}
        after = {str(run): correct(random, d, seed_effect, worse) for run, d in enumerate(difficulty)}
        falls = simulate(table(before), SIZES, SEEDS, replicates=300, seed=trial)
        margin = margins(falls, runs * (SEEDS - 1), SMALLEST, seed=trial)
        passed += all(rate(after[r], m) >= rate(before[r], m) - margin[m] for r in before for m in MEMBER)
    return passed / trials


def by_chance(trials):
    """Three standard errors of a share of `trials` that is LEVEL in truth."""
    return 3 * np.sqrt(LEVEL * (1 - LEVEL) / trials)


@pytest.mark.parametrize(("runs", "seed_effect"), [(1, 0.0), (1, 0.3), (3, 0.0), (3, 0.3)])
def test_unchanged_code_passes_as_often_as_the_level_says(runs, seed_effect):
    assert passing(200, runs, seed_effect) >= LEVEL - by_chance(200)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_level_is_exact_if_seeds_are_the_only_noise(seeds):
    random = np.random.RandomState(seeds)
    trials, passed = 400, 0
    for trial in range(trials):
        before, after = random.normal(0.7, 0.01, (2, seeds))
        falls = simulate({"ce": {"all": np.tile(before, (5, 1))}}, {"all": np.ones(5)}, seeds, 300, trial)
        passed += 100 * (before.mean() - after.mean()) <= margins(falls, seeds - 1, {"all": 0.0}, seed=trial)["all"]
    assert LEVEL - by_chance(trials) <= passed / trials <= LEVEL + by_chance(trials)


def test_a_model_that_is_clearly_worse_fails():
    assert passing(60, 3, 0.1, worse=1.5) <= 0.05


def test_a_margin_grows_with_the_number_of_comparisons():
    random = np.random.RandomState(0)
    cells = {str(run): correct(random, random.normal(1, 1, CLUSTERS), 0.2) for run in range(6)}
    falls = simulate(table(cells), SIZES, SEEDS)
    one = margins({"0": {"all": falls["0"]["all"]}}, 12, SMALLEST)["all"] / falls["0"]["all"].std()
    every = margins(falls, 12, SMALLEST)["all"] / np.sqrt(np.mean([f["all"].var() for f in falls.values()]))
    assert every > 1.3 * one


def test_a_margin_grows_with_fewer_degrees_of_freedom():
    falls = {"ce": {"all": np.random.RandomState(0).normal(size=4000)}}
    factors = [margins(falls, freedom, {"all": 0.0})["all"] for freedom in (1, 2, 4, 1000)]
    assert factors == sorted(factors, reverse=True)
    # Student's t: 95 % one-sided with 2 degrees of freedom, and the normal distribution
    assert factors[1] == pytest.approx(2.92, rel=0.1)
    assert factors[3] == pytest.approx(1.645, rel=0.05)


def test_a_candidate_with_fewer_seeds_gets_a_larger_margin():
    random = np.random.RandomState(0)
    cells = table({"ce": correct(random, random.normal(1, 1, CLUSTERS), 0.3)})
    one, three, twenty = (margins(simulate(cells, SIZES, seeds), 2, SMALLEST)["all"] for seeds in (1, 3, 20))
    assert one > three > twenty


def test_a_higher_level_gives_a_larger_margin():
    random = np.random.RandomState(0)
    falls = simulate(table({"ce": correct(random, random.normal(1, 1, CLUSTERS), 0.3)}), SIZES, SEEDS)
    low, usual, high = (margins(falls, 2, SMALLEST, level)["all"] for level in (0.8, 0.95, 0.99))
    assert low < usual < high


def test_the_margin_is_the_share_of_one_image_if_seeds_agree_on_every_image():
    same = np.tile(np.random.RandomState(0).rand(1, IMAGES) < 0.8, (SEEDS, 1))
    falls = simulate(table({"ce": same}), SIZES, SEEDS)
    assert margins(falls, 2, SMALLEST) == SMALLEST


def test_a_metric_that_does_not_move_keeps_its_least_margin_beside_one_that_does():
    falls = {"ce": {"all": np.random.RandomState(0).normal(size=4000), "few": np.zeros(4000)}}
    margin = margins(falls, 2, {"all": 0.1, "few": 4.0})
    assert margin["few"] == 4.0
    assert margin["all"] > 1


def test_the_simulation_is_the_same_for_the_same_input():
    random = np.random.RandomState(0)
    cells = table({"ce": correct(random, random.normal(1, 1, CLUSTERS), 0.3)})
    first, second = (simulate(cells, SIZES, SEEDS)["ce"]["few"] for _ in range(2))
    assert (first == second).all()
    assert margins({"ce": {"few": first}}, 2, SMALLEST) == margins({"ce": {"few": second}}, 2, SMALLEST)


def test_falls_are_symmetric_around_zero():
    random = np.random.RandomState(0)
    falls = simulate(table({"ce": correct(random, random.normal(1, 1, CLUSTERS), 0.3)}), SIZES, SEEDS, 20_000)
    assert abs(falls["ce"]["all"].mean()) < 0.03 * falls["ce"]["all"].std()


def test_a_fall_is_the_baseline_minus_the_candidate():
    # seeds with rates 100, 100 and 0, a candidate of one seed: a fall of 2/3 or more is a bad candidate (1/3) and at
    # most one bad of three (20/27); a rise of as much is a good candidate (2/3) and at least two bad of three (7/27)
    sums = {"ce": {"all": np.array([[1.0, 1.0, 0.0]])}}
    falls = simulate(sums, {"all": np.ones(1)}, 1, replicates=20_000)["ce"]["all"] / np.sqrt(3 / 2)
    assert (falls > 60).mean() == pytest.approx(20 / 81, abs=0.01)
    assert (falls < -60).mean() == pytest.approx(14 / 81, abs=0.01)


def test_cluster_sums_count_the_correct_members_of_each_cluster():
    right = np.array([[1, 1, 0, 1, 1], [0, 0, 0, 0, 1]], dtype=bool)
    member = np.array([1, 1, 1, 0, 1], dtype=bool)
    clusters = np.array([0, 0, 1, 1, 3])
    assert cluster_sums(right, member, clusters, 4).tolist() == [[2, 0], [0, 0], [0, 0], [1, 1]]


def test_all_images_of_a_source_are_drawn_together():
    # two sources of three images; the second seed misses the first source: with it drawn 0, 1, 2 times of 2
    # that seed's rate is 100, 50, 0, and never between
    sums = {"ce": {"all": np.array([[3.0, 0.0], [3.0, 3.0]])}}
    falls = simulate(sums, {"all": np.array([3.0, 3.0])}, 1, replicates=500)["ce"]["all"] / np.sqrt(2)
    assert set(np.round(np.abs(falls), 6)) == {0, 25, 50, 100}
