"""Class sizes compared with the published totals of the long-tailed benchmarks, and division by shares."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ltpipe.config.spec import Refused, parse
from ltpipe.data.sampling.class_sizes import (
    Profile,
    decode_runs,
    encode_runs,
    exponential_sizes,
    pareto_sizes,
    proportional_counts,
    step_sizes,
)
from ltpipe.storage.manifest import Groups

BY_COUNT = Groups(by="count", many=100, medium=20)

CIFAR10 = {
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    50: [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    200: [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25],
}

# weights of ranks, most frequent rank first, as splits use them
weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=6).map(lambda w: sorted(w, reverse=True))


@pytest.mark.parametrize(
    ("rho", "total", "smallest"),
    [(10, 20431, 500), (20, 17023, 250), (50, 13996, 100), (100, 12406, 50), (200, 11203, 25)],
)
def test_cifar10_lt_has_the_published_total_and_smallest_class(rho, total, smallest):
    counts = exponential_sizes(5000, rho, 10)
    assert (counts.sum(), counts[-1]) == (total, smallest)


@pytest.mark.parametrize("rho", CIFAR10)
def test_cifar10_lt_has_the_published_class_sizes(rho):
    assert exponential_sizes(5000, rho, 10).tolist() == CIFAR10[rho]


@pytest.mark.parametrize(
    ("rho", "total", "smallest"),
    [(10, 19573, 50), (20, 15907, 25), (50, 12608, 10), (100, 10847, 5), (200, 9502, 2)],
)
def test_cifar100_lt_has_the_published_total_and_smallest_class(rho, total, smallest):
    counts = exponential_sizes(500, rho, 100)
    assert (counts.sum(), counts[-1]) == (total, smallest)


def test_cifar100_lt_at_rho_100_begins_and_ends_as_published():
    counts = exponential_sizes(500, 100, 100)
    assert counts[:10].tolist() == [500, 477, 455, 434, 415, 396, 378, 361, 344, 328]
    assert counts[-5:].tolist() == [6, 5, 5, 5, 5]


def test_cifar100_lt_at_rho_100_crosses_the_group_limits_at_the_published_classes():
    assert exponential_sizes(500, 100, 100)[[34, 35, 69, 70]].tolist() == [102, 98, 20, 19]


@pytest.mark.parametrize(
    ("rho", "sizes"),
    [(10, (69, 31, 0)), (20, (53, 47, 0)), (50, (41, 41, 18)), (100, (35, 35, 30)), (200, (30, 31, 39))],
)
def test_cifar100_lt_has_the_published_group_sizes(rho, sizes):
    groups = BY_COUNT.of_classes(exponential_sizes(500, rho, 100))
    assert tuple(int((groups == g).sum()) for g in ("many", "medium", "few")) == sizes


@pytest.mark.parametrize(("rho", "total", "sizes"), [(10, 39072, (139, 61, 0)), (100, 21549, (70, 70, 60))])
def test_tiny_imagenet_lt_has_the_published_total_and_group_sizes(rho, total, sizes):
    counts = exponential_sizes(500, rho, 200)
    groups = BY_COUNT.of_classes(counts)
    assert counts.sum() == total
    assert tuple(int((groups == g).sum()) for g in ("many", "medium", "few")) == sizes


@given(st.integers(1, 10**4), st.floats(1, 1000), st.integers(2, 200))
def test_a_long_tail_starts_at_the_largest_and_never_rises(largest, rho, classes):
    counts = exponential_sizes(largest, rho, classes)
    assert counts.dtype == np.int64
    assert len(counts) == classes
    assert counts[0] == largest
    assert (np.diff(counts) <= 0).all()
    assert largest / rho - 1 - 1e-6 <= counts[-1] <= largest / rho + 1e-6


def test_a_single_class_keeps_all_images():
    assert exponential_sizes(7, 100, 1).tolist() == [7]


def test_rho_1_gives_balanced_sizes():
    assert exponential_sizes(40, 1, 10).tolist() == [40] * 10


def test_sizes_of_a_larger_rho_are_never_larger():
    assert (exponential_sizes(500, 200, 100) <= exponential_sizes(500, 100, 100)).all()


def test_a_step_gives_the_first_half_the_largest_size_and_the_rest_one_smaller_size():
    assert step_sizes(5000, 100, 10).tolist() == [5000] * 5 + [50] * 5
    assert step_sizes(500, 200, 5).tolist() == [500] * 2 + [2] * 3


@given(st.integers(10, 2000), st.floats(1, 300), st.integers(2, 50), st.floats(0.5, 10))
def test_a_pareto_tail_runs_from_the_largest_size_to_this_divided_by_rho(largest, rho, classes, power):
    counts = pareto_sizes(largest, rho, classes, power)
    assert (counts[0], len(counts)) == (largest, classes)
    assert (np.diff(counts) <= 0).all()
    assert largest / rho - 1 <= counts[-1] <= largest / rho + 1e-3


@pytest.mark.parametrize(
    ("text", "sizes"), [("500x3 497", [500, 500, 500, 497]), ("7", [7]), (" 1  2x2\n0 ", [1, 2, 2, 0])]
)
def test_sizes_can_be_run_length_coded(text, sizes):
    assert decode_runs(text) == sizes


@given(st.lists(st.integers(0, 3), max_size=30))
def test_run_length_coded_sizes_are_read_back(sizes):
    assert decode_runs(encode_runs(sizes)) == sizes


@pytest.mark.parametrize("text", ["500y3", "5x", "-5", "1.5", "x3"])
def test_a_word_that_is_not_a_size_is_named_in_the_error(text):
    with pytest.raises(ValueError, match=f"not a size, nor size x repeats as in 500x3: {text}"):
        decode_runs(f"500x3 {text}")


@pytest.mark.parametrize(
    ("block", "sizes"),
    [
        ({"shape": "exponential", "largest": 100, "rho": 10}, [100, 31, 10]),
        ({"shape": "step", "largest": 100, "rho": 10}, [100, 10, 10]),
        ({"shape": "pareto", "largest": 100, "rho": 10, "power": 1}, [100, 18, 10]),
        ({"shape": "list", "sizes": [9, 5, 5]}, [9, 5, 5]),
        ({"shape": "list", "sizes": "9 5x2"}, [9, 5, 5]),
        ({"shape": "natural"}, [200, 150, 100]),
    ],
)
def test_a_profile_gives_the_sizes_of_its_shape(block, sizes):
    assert parse(Profile, block, "profile").class_sizes(np.array([200, 150, 100])).tolist() == sizes


def test_a_profile_that_needs_more_images_than_a_class_has_is_refused_with_class_and_numbers():
    with pytest.raises(Refused, match="1 classes are too small: class 1 has 30 images, 31 are wanted"):
        Profile(shape="exponential", largest=100, rho=10).class_sizes(np.array([100, 30, 100]))


def test_a_profile_with_another_number_of_classes_is_refused():
    with pytest.raises(Refused, match="2 sizes for 3 classes"):
        Profile(shape="list", sizes=[3, 2]).class_sizes(np.array([9, 9, 9]))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"shape": "exponential", "largest": 3}, "shape exponential needs largest, rho; given: largest"),
        ({"shape": "natural", "rho": 3}, "shape natural needs nothing more; given: rho"),
        ({"shape": "list"}, "shape list needs sizes; given: nothing"),
        ({"shape": "list", "sizes": "3 -1"}, "not a size"),
        ({"shape": "list", "sizes": [3, -1]}, "greater than or equal to 0"),
        ({"shape": "linear"}, "'exponential', 'step', 'pareto', 'list' or 'natural'"),
    ],
)
def test_an_incomplete_profile_is_refused_with_what_it_needs(block, message):
    with pytest.raises(Refused, match=message):
        parse(Profile, block, "profile")


@pytest.mark.parametrize(
    ("total", "weights", "counts"),
    [
        (100, [70, 20, 10], [70, 20, 10]),
        (10, [7, 2, 1], [7, 2, 1]),
        (3, [70, 20, 10], [1, 1, 1]),
        (4, [70, 20, 10], [2, 1, 1]),
        (12, [70, 20, 10], [9, 2, 1]),  # 8.4, 2.4, 1.2: the tie of remainders goes to the first
        (5, [1, 1], [3, 2]),
        (8, [1, 1, 1], [3, 3, 2]),
    ],
)
def test_proportional_counts_of_small_totals_equal_hand_calculation(total, weights, counts):
    assert proportional_counts(total, weights).tolist() == counts


@given(weights, st.integers(0, 500))
def test_proportional_counts_add_up_and_none_is_empty(weights, extra):
    counts = proportional_counts(len(weights) + extra, weights)
    assert counts.dtype == np.int64
    assert counts.sum() == len(weights) + extra
    assert counts.min() >= 1


@given(weights, st.integers(0, 500))
def test_proportional_counts_are_within_one_of_exact_if_no_rank_would_be_empty(weights, extra):
    total = len(weights) + extra
    exact = total * np.array(weights) / sum(weights)
    if exact.min() >= 1:
        assert np.abs(proportional_counts(total, weights) - exact).max() < 1 + 1e-9


@given(weights, st.integers(0, 500))
@example([10.0, 10.0, 1.0, 1.0, 1.0], 1)
def test_a_more_frequent_rank_never_gets_fewer(weights, extra):
    assert (np.diff(proportional_counts(len(weights) + extra, weights)) <= 0).all()


def test_proportional_counts_refuse_fewer_images_than_ranks():
    with pytest.raises(ValueError, match="2 images cannot give each of 3 ranks one"):
        proportional_counts(2, [70, 20, 10])
