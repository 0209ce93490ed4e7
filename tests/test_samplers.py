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
