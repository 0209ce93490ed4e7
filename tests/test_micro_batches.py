"""A step in micro-batches: the whole batch's loss and gradient, for every method; batch norm sees the micro-batches."""

from functools import partial

import pytest
import tiny
import torch
from torch import nn
from torch.nn import functional as F

from ltpipe.interface.streams import Batch
from ltpipe.models.network import Network, Output
from ltpipe.recipe.schedule import Schedule
from ltpipe.training import checkpoint, loop, micro_batches

TWO = tiny.SCHEDULE.model_copy(update={"accumulate": 2, "save_every": 10**6})
ONE = TWO.model_copy(update={"accumulate": 1})
each = pytest.mark.parametrize("name", tiny.NAMES)


def fit(folder, name, schedule, options=None):
    return loop.fit(tiny.task(folder, name, tiny.example(name) | (options or {}), schedule=schedule))


@pytest.fixture
def without_statistics(monkeypatch):
    """Let batch norm use its running statistics also while training, and never move them."""

    def forward(self, x):
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", forward)


@each
def test_without_statistics_of_the_batch_a_method_trains_the_same(name, tmp_path, without_statistics, monkeypatch):
    """Losses, weights, and what the method keeps: centres, means, environments. No method is excepted."""
    monkeypatch.setattr(tiny, "cross_entropy", tiny.cross_entropy.__wrapped__)
    weights, history, _, _ = fit(tmp_path, name, ONE)
    micro, rows, _, _ = fit(tmp_path, name, TWO)
    assert micro.keys() == weights.keys()
    for key, value in weights.items():
        assert torch.allclose(micro[key], value, rtol=1e-3, atol=1e-4), key
    for row, other in zip(rows, history, strict=True):
        assert row == pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@each
def test_with_statistics_a_method_trains(name, precision, tmp_path):
    weights, _, _, _ = fit(tmp_path, name, TWO.model_copy(update={"precision": precision}))
    assert all(torch.isfinite(value).all() for value in weights.values() if value.is_floating_point())


@pytest.mark.parametrize("name", ["ce", "bbn", "ifl", "mixup", "dro_lt", "tde"])
def test_resumes_bit_for_bit(name, tmp_path, monkeypatch):
    wanted = fit(tmp_path, name, TWO)
    saved = TWO.model_copy(update={"save_every": 1})
    result, kills = None, 0
    while result is None:
        monkeypatch.setattr(checkpoint, "save_resume", tiny.Killer(before=2))
        try:
            result = fit(tmp_path, name, saved)
        except tiny.Killed:
            kills += 1
    assert kills > 2
    assert tiny.same(result[0], wanted[0]) and result[1:3] == wanted[1:3]


def network():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(backbone, nn.Linear(4, 3), None).train()


def test_the_gradient_is_that_of_the_loss_of_all_outputs_with_statistics_of_the_micro_batches():
    images, labels = torch.randn(7, 3, 6, 6), torch.tensor([0, 1, 2, 0, 1, 0, 0])
    weight = torch.tensor([0.2, 1.0, 5.0])  # a weighted mean is no mean of the micro-batches' weighted means

    def loss(out):
        return {"loss": F.cross_entropy(out.logits, labels, weight=weight)}

    wanted = network()
    logits = torch.empty(7, 3)
    for number in range(3):
        logits[number::3] = wanted(images[number::3]).logits
    loss(Output(logits, logits))["loss"].backward()
    found = network()
    out, parts = micro_batches.backward(found, found, micro_batches.split(images, 3, 1), loss)
    assert torch.allclose(out.logits, logits) and not parts["loss"].isnan()
    for (key, value), other in zip(wanted.named_parameters(), found.parameters(), strict=True):
        assert torch.allclose(other.grad, value.grad, atol=1e-7), key
    for (key, value), other in zip(wanted.named_buffers(), found.buffers(), strict=True):
        assert torch.allclose(other, value, atol=1e-7), key  # moved once for each micro-batch, in their order


def test_the_network_never_computes_more_than_a_micro_batch(tmp_path, monkeypatch):
    seen, forward = [], Network.forward

    def spy(self, images):
        if self.backbone.training:
            seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Network, "forward", spy)
    fit(tmp_path, "ce", TWO.model_copy(update={"accumulate": 4}))
    assert set(seen) == {2}  # a batch of 8; the last step of an epoch, of one image, is left out
    seen.clear()
    fit(tmp_path, "bbn", TWO.model_copy(update={"accumulate": 4}))
    assert set(seen) == {4}  # two of each stream


def test_a_micro_batch_has_its_share_of_each_stream_and_part():
    images = torch.arange(10.0)[:, None, None, None].expand(10, 3, 2, 2)

    def values(count, parts):
        return [batch[:, 0, 0, 0].tolist() for batch in micro_batches.split(images, count, parts)]

    assert values(2, 1) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert values(2, 2) == [[0, 2, 4, 5, 7, 9], [1, 3, 6, 8]]
    assert values(9, 1) == [[0, 5], [1, 6], [2, 7], [3, 8], [4, 9]]  # at least two images in each
    assert values(9, 5) == [list(range(10))]


def test_a_micro_batch_of_one_image_is_refused():
    with pytest.raises(ValueError, match="valid: 1 to 4, because batch norm cannot train on a single image"):
        Schedule(epochs=1, batch=8, lr=0.1, weight_decay=0, accumulate=5)


def test_one_micro_batch_is_the_step_without(tmp_path, monkeypatch):
    """The golden losses hold `accumulate: 1` to its numbers; here, that it is not computed by another way."""
    monkeypatch.setattr(micro_batches, "backward", None)
    fit(tmp_path, "ce", ONE)


def test_frozen_parts_have_no_gradient_and_a_method_s_own_have_one():
    """As in lws, whose only parameters are scales of the logits."""
    frozen, scale = network().requires_grad_(False), torch.ones(3, requires_grad=True)
    images, labels = torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 2, 0])
    batch = Batch(images, labels, labels)

    def loss(scale, out):
        return {"loss": F.cross_entropy(scale * out.logits, batch.labels)}

    micro_batches.backward(frozen, frozen, micro_batches.split(images, 2, 1), partial(loss, scale))
    assert scale.grad.abs().sum() > 0 and all(value.grad is None for value in frozen.parameters())
