"""What a method can expect of the loop: phases, frozen parts, starts, branches, times, chunks."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from ltpipe.config.spec import Refused
from ltpipe.interface.method import Embedding, concatenate
from ltpipe.interface.phases import Augment, Clock, Phase, at
from ltpipe.interface.streams import Batch, Problem, Stream
from ltpipe.layers.branches import Branches
from ltpipe.methods import dro_lt
from ltpipe.methods.ifl import pareto_weights
from ltpipe.models.model import Model
from ltpipe.recipe.cell import recipe
from ltpipe.recipe.run import Run, build_network
from ltpipe.recipe.schedule import Schedule
from ltpipe.training import loop, optimiser


@pytest.mark.parametrize(("when", "epoch"), [(0, 0), (3, 3), (0.0, 0), (0.8, 160), (0.29, 58), (1.0, 200)])
def test_times_of_the_schedule(when, epoch):
    assert at(when, 200) == epoch
    clock = Clock(epoch=epoch, epochs=200)
    assert clock.passed(when) and not Clock(epoch=epoch - 1, epochs=200).passed(when)


@pytest.mark.parametrize("when", [-1, 1.5, -0.1])
def test_impossible_times_are_refused(when):
    with pytest.raises(ValueError, match="drw"):
        Run(method="ldam", split="train", options={"drw": when})


def test_a_branch_sees_its_part_of_the_batch_only_while_training():
    branches = Branches(torch.nn.Identity(), [torch.nn.Identity(), torch.nn.Identity()], 3)
    x = torch.arange(12.0).reshape(4, 3)
    branches.partition_batch = True
    assert torch.equal(branches(x), torch.stack([x[:2], x[2:]], 1))
    assert torch.equal(branches.eval()(x), torch.stack([x, x], 1))


def test_a_partitioned_batch_has_the_statistics_of_its_parts():
    """BBN's streams pass through the trunk one after the other, as in the authors' code."""
    trunk = torch.nn.BatchNorm2d(1, affine=False)
    branches = Branches(trunk, [torch.nn.Flatten(), torch.nn.Flatten()], 4)
    branches.partition_batch = True
    first, second = torch.randn(3, 1, 2, 2), 5 + torch.randn(3, 1, 2, 2)
    out = branches(torch.cat([first, second]))
    assert out.mean(dim=(0, 2)).tolist() == pytest.approx([0, 0], abs=1e-5)


@pytest.mark.parametrize("drift", [False, True])
def test_frozen_parts_are_in_eval_mode_unless_they_drift(drift):
    network = tiny.built(tiny.task("none", "ce")).network
    optimiser.set_modes(network, Phase(1, 0.1, trainable=("head",), drift=drift))
    assert network.head.training and network.backbone.training == drift


def test_crt_keeps_the_backbone_bit_for_bit_and_starts_a_new_head(tmp_path):
    start = tiny.cross_entropy()
    weights, _, _, _ = loop.fit(tiny.task(tmp_path, "crt", {"epochs": 1, "lr": 1e-9}))
    backbone = [name for name in start if name.startswith("backbone.")]
    assert all(torch.equal(weights[name], start[name]) for name in backbone)
    assert (weights["head.weight"] - start["head.weight"]).abs().max() > 0.01
    drifted, _, _, _ = loop.fit(tiny.task(tmp_path, "crt", {"epochs": 1, "drift": True}))
    changed = [name for name in backbone if not torch.equal(drifted[name], start[name])]
    assert changed and all("running" in name or "num_batches" in name for name in changed)


def test_lws_keeps_everything_but_its_scales(tmp_path):
    start = tiny.cross_entropy()
    weights, _, _, _ = loop.fit(tiny.task(tmp_path, "lws", {"epochs": 1}))
    assert all(torch.equal(weights[name], start[name]) for name in start)
    assert (weights["own.scale"] != 1).all()


@pytest.mark.parametrize("loss", ["binary", "softmax"])
def test_weight_balancing_trains_the_head_below_the_limit_of_the_run_that_it_starts_from(loss, tmp_path):
    start = tiny.cross_entropy()
    norms = start["head.weight"].norm(dim=1)
    limit = norms.min() + 0.1 * (norms.max() - norms.min())
    options = {"epochs": 2, "loss": loss, "lr": 0.5, "weight_decay": 0.0}
    weights, _, _, _ = loop.fit(tiny.task(tmp_path, "weight_balance", options))
    assert all(torch.equal(weights[name], start[name]) for name in start if name.startswith("backbone."))
    assert weights["own.limit"] == pytest.approx(float(limit))
    assert weights["head.weight"].norm(dim=1).tolist() == pytest.approx([float(limit)] * 4, rel=0.2)
    assert weights["head.weight"].norm(dim=1).max() <= limit * (1 + 1e-6)
    assert not torch.equal(weights["head.bias"], start["head.bias"])


def test_tau_norm_drops_the_bias_and_names_its_tau(tmp_path):
    start = tiny.cross_entropy()
    weights, history, facts, _ = loop.fit(tiny.task(tmp_path, "tau_norm", {"tau": 1.0}))
    assert history == [] and facts == {"tau": 1.0}
    norms = start["head.weight"].norm(dim=1, keepdim=True)
    assert torch.allclose(weights["head.weight"], start["head.weight"] / norms) and not weights["head.bias"].any()


def test_post_hoc_shares_the_weights_of_the_run_it_starts_from(tmp_path):
    """Post-hoc logit adjustment on a run of another method, whose own parameters and buffers are not taken."""
    start, _, _, _ = loop.fit(tiny.task(tmp_path, "ifl", tiny.example("ifl")))
    weights, history, _, _ = loop.fit(tiny.task(tmp_path, "logit_adjust", {"form": "post_hoc"}, start=start))
    assert history == []
    assert all(torch.equal(value, start[name]) for name, value in weights.items() if not name.startswith("own."))


def test_a_start_of_another_shape_is_refused(tmp_path):
    start, _, _, _ = loop.fit(tiny.task(tmp_path, "ride", {"experts": 2}))
    with pytest.raises(Refused, match="does not fit"):
        loop.fit(tiny.task(tmp_path, "lws", start=start))
    with pytest.raises(Refused, match="name one in start_from"):
        build_network(Run(method="crt", split="train"), tiny.MODEL, tiny.PROBLEM)


def test_dro_lt_trains_in_three_phases(tmp_path):
    task = tiny.task(tmp_path, "dro_lt", {"feature_epochs": 0.5, "classifier_epochs": 2})
    before = tiny.built(task)
    assert [(p.epochs, p.trainable) for p in before.phases] == [
        (2, ("backbone", "head", "own")),
        (1, ("backbone", "own")),
        (2, ("head",)),
    ]
    weights, history, _, _ = loop.fit(task)
    assert [row["phase"] for row in history] == [1, 1, 2, 3, 3]
    assert ["robust" in row for row in history] == [False, False, True, False, False]
    assert weights["own.centroids"].shape == (4, 16) and weights["own.centroids"].any()
    started = tiny.built(tiny.task(tmp_path, "dro_lt", start=tiny.cross_entropy()))
    assert [p.trainable for p in started.phases] == [("backbone", "own"), ("head",)] and started.method.stage() == 2


def test_centroids_are_class_means_in_chunks():
    method = tiny.built(tiny.task("none", "dro_lt", start=tiny.cross_entropy())).method
    features, labels = torch.randn(25, 16), tiny.TRAIN.labels
    chunk = lambda a, b: Embedding(features[a:b], features[a:b], labels[a:b], torch.arange(a, b))  # noqa: E731
    method.begin_epoch(lambda split: iter([chunk(0, 10), chunk(10, 25)]))
    for label in range(4):
        assert torch.allclose(method.own.centroids[label], features[labels == label].mean(0), atol=1e-6)


def test_centroids_of_the_stream_are_of_a_class_aware_augmented_draw_that_repeats(tmp_path):
    """`embed("stream")`: as many images as the epoch shows, each class equally often, augmented, not the epoch's."""
    seen = {}
    for centroids in ("train", "stream"):
        task = tiny.task(tmp_path, "dro_lt", {"centroids": centroids}, start=tiny.cross_entropy())
        state = loop._initial_state(task)
        state.method.clock.epochs = 2
        state.augment = Augment(crop=2, flip=True)
        draw = lambda: concatenate(loop._embed(task, state, centroids))  # noqa: E731, B023
        seen[centroids] = first = draw()
        assert torch.equal(first.features, draw().features)
        state.method.begin_epoch(lambda split: loop._embed(task, state, split))  # noqa: B023
        means = torch.stack([first.features[first.labels == label].mean(0) for label in range(4)])
        assert torch.allclose(state.method.own.centroids, means, atol=1e-6)
    assert seen["train"].labels.bincount().tolist() == list(tiny.COUNTS)
    assert seen["stream"].labels.bincount().tolist() == [12, 12, 12, 12]  # n_max C images
    trained = torch.cat([rows for (rows,) in loop._draw_steps(task, state)])
    assert not torch.equal(trained, seen["stream"].index[: len(trained)])
    rare = seen["stream"].features[seen["stream"].labels == 3]
    assert len(rare.unique(dim=0)) > tiny.COUNTS[3]  # each draw of an image is augmented anew
    state.epoch = 1
    assert not torch.equal(seen["stream"].features, draw().features)


@pytest.mark.parametrize(
    ("options", "decay", "radius"),
    [({}, 1e-4, 0), ({"radius_decay": True}, 1e-4, 1e-4), ({"weight_decay": None}, 5e-4, 0)],
)
def test_phases_2_and_3_of_dro_lt_have_the_authors_weight_decay(tmp_path, options, decay, radius):
    schedule = tiny.SCHEDULE.model_copy(update={"weight_decay": 5e-4})
    made = tiny.built(tiny.task(tmp_path, "dro_lt", options, schedule=schedule, start=tiny.cross_entropy()))
    groups = [optimiser.build(made.network, made.method, phase, schedule).param_groups for phase in made.phases]
    assert [[group["weight_decay"] for group in phase] for phase in groups] == [[decay, radius], [decay]]
    first = tiny.built(tiny.task(tmp_path, "dro_lt", options, schedule=schedule))
    sgd = optimiser.build(first.network, first.method, first.phases[0], schedule)
    assert sgd.param_groups[0]["weight_decay"] == 5e-4


@pytest.mark.parametrize(("images", "length"), [("reference", 48), ("capped", 48), (30, 30)])
def test_images_of_an_epoch_of_dro_lt(images, length):
    assert dro_lt.stream_of(tiny.PROBLEM, 4, images) == Stream(per_class=4, length=length)


def test_images_of_an_epoch_of_dro_lt_are_capped_at_four_epochs():
    tail = Problem(np.repeat(np.arange(10), [100, *[2] * 9]), 10)
    assert dro_lt.stream_of(tail, 4, "reference").length == 1000
    assert dro_lt.stream_of(tail, 4, "capped").length == 4 * 118


def test_environments_follow_the_schedule(tmp_path):
    task = tiny.task(tmp_path, "ifl", {"centre_from": [1], "centre_weight": [0.01], "updates": [0], "steps": "fair"})
    weights, history, facts, _ = loop.fit(task)
    assert "centre" not in history[0] and "centre" in history[1]
    env = weights["own.weights"]
    assert (env[0] == 1).all() and (env[1] != 1).any()
    mass = np.bincount(tiny.PROBLEM.labels, env[1].numpy())
    assert mass == pytest.approx(np.ones(4), rel=1e-5)  # class-balanced
    half = (np.array(tiny.COUNTS) / 25 + 0.25) / 2
    assert facts["stream_prior"] == pytest.approx(half, abs=1e-5)


@pytest.mark.parametrize(
    ("steps", "streams", "images"), [("reference", "dual", 50), ("fair", "dual", 26), ("fair", "triple", 27)]
)
def test_images_of_an_epoch(steps, streams, images):
    method = tiny.built(tiny.task("none", "ifl", {"steps": steps, "streams": streams})).method
    assert sum(stream.length for stream in method.streams()) == images


@pytest.mark.parametrize("prior", ["stream", "data"])
@pytest.mark.parametrize("inner", ["logit_adjust", "balanced_softmax", "tade"])
def test_a_base_gets_the_prior_of_the_environments(prior, inner, tmp_path):
    weights, _, facts, _ = loop.fit(tiny.task(tmp_path, "ifl", tiny.example("ifl") | {"base": inner, "prior": prior}))
    expected = facts["stream_prior"] if prior == "stream" else tiny.PROBLEM.prior
    assert weights["own.base.log_prior"].exp().tolist() == pytest.approx(list(expected), rel=1e-4)


def test_a_base_shares_the_state_of_the_method_around_it():
    """They share clock, own module and augmentation, here with two methods around the base."""
    options = {"base": {"method": "randaug", "options": {"base": "tde"}}}
    built = tiny.built(tiny.task("none", "ifl", options))
    inner = built.method.innermost()
    assert inner.clock is built.method.clock
    assert inner.own is built.network.own.base.base and inner.own.mean.shape == (16,)
    assert built.phases[0].augment.randaug and built.phases[0].augment.crop == 1


def test_bbn_moves_from_the_first_branch_to_the_second():
    method = tiny.built(tiny.task("none", "bbn")).method
    batch = Batch(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    shares = []
    for epoch in range(2):
        method.clock.epoch = epoch
        shares.append(method.batch((batch, batch)).share)
    assert shares == [1.0, 0.75]
    before = tiny.built(tiny.task("none", "bbn", {"epoch_offset": -1, "draw": "replacement"})).method
    before.clock.epoch = 1
    assert before.batch((batch, batch)).share == 1.0
    uniform, reverse = before.streams()
    assert (uniform.weights == 1).all() and not (reverse.weights == 1).any() and method.streams()[0].weights is None


def test_the_target_network_is_served():
    built = tiny.built(tiny.task("none", "lff"))
    experts = torch.randn(3, 2, 4)
    out = SimpleNamespace(experts=experts, logits=experts.mean(1))
    assert torch.equal(built.method.predict(out), experts[:, 1])
    assert not list(built.network.backbone.trunk.parameters())


def test_an_image_that_was_not_drawn_has_weight_0_as_in_the_authors_code():
    labels = torch.tensor(tiny.PROBLEM.labels)
    scores = torch.rand(25)
    scores[[0, 3, 20, 24]] = float("nan")
    options = {"scores": "epoch", "prior": "data"}
    for unseen, zeros in (("zero", [0, 3, 20, 24]), ("mean", [])):
        method = tiny.built(tiny.task("none", "ifl", options | {"unseen": unseen})).method
        method._draw_environments(scores)
        weights = method.own.weights[1]
        assert (weights == 0).nonzero().flatten().tolist() == zeros
        mass = torch.zeros(4).index_add_(0, labels, weights)
        assert mass.tolist() == pytest.approx([1] * 4, rel=1e-5)
    seen = ~scores.isnan()
    zero = tiny.built(tiny.task("none", "ifl", options | {"unseen": "zero"})).method
    zero._draw_environments(scores)
    expected = pareto_weights(scores[seen], labels[seen], 4)
    assert zero.own.weights[1, seen].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


WITHOUT_BIAS = tiny.MODEL.model_copy(update={"head_bias": False})


@pytest.mark.parametrize("name", tiny.NAMES)
def test_heads_have_no_bias_if_the_model_says_so(name):
    run = tiny.task("none", name, tiny.example(name)).run
    network, _ = build_network(run, WITHOUT_BIAS, tiny.PROBLEM)
    assert not [key for key, _ in network.head.named_parameters() if key.endswith("bias")]


@pytest.mark.parametrize("name", ["crt", "lws", "tau_norm"])
def test_second_stages_work_on_a_head_without_bias(name, tmp_path):
    start = loop.fit(replace(tiny.task(tmp_path, "ce"), model=WITHOUT_BIAS))[0]
    task = tiny.task(tmp_path, name, tiny.example(name), start=start)
    weights, _, _, _ = loop.fit(replace(task, model=WITHOUT_BIAS))
    assert "head.bias" not in weights and "head.weight" in weights


def test_a_run_may_have_a_network_of_its_own():
    own = {"options": {"width": 8}, "head_bias": False}
    run = Run(method="ce", split="train", model=own)
    network, _ = build_network(run, tiny.MODEL, tiny.PROBLEM)
    assert network.backbone.features == 32 and network.head.bias is None
    assert recipe(run, tiny.SCHEDULE, tiny.MODEL)["model"]["options"] == {"width": 8}
    changed = tiny.MODEL.with_changes(own)
    assert changed.with_changes(own) == changed and changed.image == tiny.MODEL.image
    other = {"backbone": "resnet32"}
    assert tiny.MODEL.with_changes(other).options == {}
    assert "ltpipe.backbones.resnet32" in Run(method="ce", split="train", model=other).modules()
    for wrong, message in (({"image": 4}, "image cannot be changed for one run"), ({"options": {"wide": 1}}, "wide")):
        with pytest.raises(Refused, match=message):
            tiny.MODEL.with_changes(wrong)


def test_mixup_of_one_image_with_itself_is_that_image():
    method = tiny.built(tiny.task("none", "mixup")).method
    batch = Batch(torch.rand(1, 3, 8, 8), torch.tensor([2]), torch.tensor([0]))
    mixed = method.batch((batch,))
    assert torch.allclose(mixed.images, batch.images) and mixed.other.tolist() == [2]


def test_ldam_and_class_balanced_weigh_from_their_epoch_on():
    out = SimpleNamespace(logits=torch.tensor([[2.0, 0, 0, 0], [0, 0, 0, 1.0]]))
    batch = Batch(torch.zeros(2), torch.tensor([0, 3]), torch.arange(2))
    for name, options in (("ldam", {"drw": 1}), ("class_balanced", {"start": 0.5})):
        method = tiny.built(tiny.task("none", name, options)).method
        method.own = method.build(16)
        early = method.loss(out, batch)["loss"]
        method.clock.epoch = 1
        assert method.loss(out, batch)["loss"] != early


def test_schedule_passes_its_augmentation_to_the_phase():
    schedule = Schedule(epochs=1, batch=2, lr=0.1, weight_decay=0, augment={"randaug": True, "cutout": 4})
    assert schedule.phase().augment.randaug and schedule.phase().augment.cutout == 4


WIDTHS = [
    *[("ride", "resnet32", 48), ("tade", "resnet32", 48), ("bbn", "resnet32", 64), ("ce", "resnet32", 64)],
    *[("ifl", "resnet32", 48), ("ride", "resnet", 384), ("bbn", "resnet", 512), ("ride", "cnn", 64)],
]


@pytest.mark.parametrize(("name", "backbone", "width"), WIDTHS)
def test_experts_are_narrow_and_bbns_branches_are_not(name, backbone, width):
    """RIDE's experts have 3/4 of the channels of their private stages; BBN's branches all of them."""
    options = {"resnet": {"depth": 18, "stem": "small"}}.get(backbone, {})
    base = {"base": "ride", "centre": "cosine"} if name == "ifl" else {}
    network, _ = build_network(
        Run(method=name, split="train", options=base), Model(backbone=backbone, image=32, options=options), tiny.PROBLEM
    )
    assert network.backbone.features == width


@pytest.mark.parametrize(
    ("name", "options"),
    [("tau_norm", {"tau": 1.0}), ("lws", {"epochs": 1}), ("logit_adjust", {"form": "post_hoc"}), ("dro_lt", {})],
)
def test_a_cosine_head_is_never_taken_for_a_linear_head_without_bias(tmp_path, name, options):
    """Both hold nothing but a matrix C x D; scale and normalisation would be lost without a word."""
    start = loop.fit(replace(tiny.task(tmp_path, "ldam"), model=WITHOUT_BIAS))[0]
    task = tiny.task(tmp_path, name, tiny.example(name) | options, start=start)
    with pytest.raises(Refused, match="does not fit"):
        loop.fit(replace(task, model=WITHOUT_BIAS))


def test_the_branches_of_bbn_start_as_halves_of_one_linear_head(tmp_path):
    """uniform in +-1 / sqrt(D), where D counts the features of both branches."""
    network, _ = build_network(Run(method="bbn"), tiny.MODEL, Problem(np.repeat(np.arange(4), 500), 4))
    for head in network.head.heads:
        bound = (2 * head.in_features) ** -0.5
        assert 0.8 * bound < head.weight.abs().max() <= bound


def test_centres_that_start_at_random_differ_between_seeds():
    problem, run = Problem(np.repeat(np.arange(4), 5), 4), Run(method="ifl", options={"centres": "normal"})

    def centres(seed):
        torch.manual_seed(seed)
        return build_network(run, tiny.MODEL, problem)[0].own.centres

    assert torch.equal(centres(1), centres(1)) and not torch.equal(centres(1), centres(2))


def test_ifl_refuses_a_base_that_trains_a_second_network():
    problem = Problem(np.repeat(np.arange(4), 5), 4)
    with pytest.raises(Refused, match="by the network that is served"):
        build_network(Run(method="ifl", options={"base": "lff"}), tiny.MODEL, problem)
