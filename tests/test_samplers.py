"""Orders of training images (balanced, complete, reproducible), and their division into steps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltpipe.interface.streams import Problem, Stream, class_aware
from ltpipe.training import samplers


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any),
    per_class=st.integers(1, 5),
    length=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_class_aware_draws_classes_and_their_images_equally_often(counts, per_class, length, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator(seed))]
    rows = samplers.draw_class_aware(labels, per_class, length, generator(seed))
    assert len(rows) == length
    runs = labels[rows[: length // per_class * per_class]].reshape(-1, per_class)
    assert (runs == runs[:, :1]).all()  # per_class images of one drawn class
    drawn = np.bincount(runs[:, 0], minlength=len(counts))[np.array(counts) > 0]
    assert drawn.max() - drawn.min() <= 1
    complete = runs.numel() == length  # the images of a run that is cut off may be drawn once more than others
    for label in set(labels.tolist()):
        times = np.bincount(rows[labels[rows] == label], minlength=len(labels))[(labels == label).numpy()]
        assert times.max() - times.min() <= (1 if complete else 2)
    assert torch.equal(rows, samplers.draw_class_aware(labels, per_class, length, generator(seed)))
    if length > 50 and len(labels) > 20:
        assert not torch.equal(rows, samplers.draw_class_aware(labels, per_class, length, generator(seed + 1)))


@pytest.mark.parametrize("length", [7, 10, 25])
def test_shuffled_order_shows_every_image_equally_often(length):
    rows = samplers.draw_order(Stream(length=length), torch.zeros(10, dtype=torch.int64), generator())
    times = np.bincount(rows, minlength=10)
    assert len(rows) == length and times.max() - times.min() <= 1


def test_weighted_order_follows_its_weights():
    weights = torch.tensor([0.0, 1.0, 3.0])
    rows = samplers.draw_order(Stream(weights=weights, length=4000), torch.zeros(3, dtype=torch.int64), generator())
    times = np.bincount(rows, minlength=3) / 4000
    assert times == pytest.approx([0, 0.25, 0.75], abs=0.03)


def test_weighted_order_works_for_more_rows_than_float32_can_count():
    """torch.multinomial refuses more than 2^24 weights, which own data or many environments may have."""
    weights = torch.zeros(2**24 + 1, dtype=torch.float64)
    weights[[5, 2**24]] = torch.tensor([1.0, 3.0], dtype=torch.float64)
    rows = samplers.draw_order(Stream(weights=weights, length=4000), torch.empty(2**24 + 1), generator())
    assert set(rows.tolist()) == {5, 2**24}
    assert (rows == 5).double().mean().item() == pytest.approx(0.25, abs=0.03)


LAST = 1 - 2**-53  # the largest number that torch.rand gives in float64


@settings(max_examples=200)
@given(weights=st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 1 / 3, 7e11]), min_size=1, max_size=40).filter(any))
def test_rows_of_weight_0_are_never_drawn(weights):
    values = torch.tensor(weights, dtype=torch.float64)
    total = values.cumsum(0)
    edges = (total / total[-1]).clamp(0, LAST)  # the ends of the rows, where rounding might choose a neighbour
    shares = torch.cat([torch.tensor([0.0, 5e-324, LAST], dtype=torch.float64), edges])
    rows = samplers.rows_at(values, shares)
    assert (values[rows] > 0).all()
    assert rows[0] == np.flatnonzero(weights)[0] and weights[int(rows[2])] > 0


def test_rows_are_those_of_multinomial():
    weights = torch.rand(1000, dtype=torch.float64, generator=generator()) * (torch.arange(1000) % 3)
    drawn = torch.multinomial(weights, 5000, replacement=True, generator=generator(7))
    assert torch.equal(samplers.draw_order(Stream(weights=weights, length=5000), weights, generator(7)), drawn)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0, 3.0], [1.0, float("nan")], [float("inf"), 1.0]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="sampling weights must be finite"):
        samplers.draw_order(Stream(weights=torch.tensor(weights)), torch.zeros(len(weights)), generator())


def sizes(streams, lengths, batch):
    steps = samplers.split_into_steps(streams, [torch.arange(n) for n in lengths], batch)
    return [tuple(map(len, step)) for step in steps]


def test_streams_share_a_batch_or_fill_their_own():
    assert sizes((Stream(), Stream()), (5, 5), 4) == [(2, 2), (2, 2), (1, 1)]
    assert sizes((Stream(own_batch=True), Stream(own_batch=True)), (8, 8), 4) == [(4, 4), (4, 4)]
    assert sizes((Stream(own_batch=True), Stream(own_batch=True)), (5, 5), 4) == [
        (4, 4)
    ]  # batch norm cannot train on a single image
    assert sizes((Stream(),), (9,), 4) == [(4,), (4,)]
    assert sizes((Stream(),), (0,), 4) == []
    with pytest.raises(ValueError, match="too small for 3 streams"):
        sizes((Stream(),) * 3, (9, 9, 9), 2)


def test_class_aware_stream_is_capped_at_four_epochs():
    assert class_aware(Problem(np.repeat(np.arange(3), [90, 5, 5]), 3), 4).length == 270
    assert class_aware(Problem(np.repeat(np.arange(9), [90, *[1] * 8]), 9), 4).length == 4 * 98
