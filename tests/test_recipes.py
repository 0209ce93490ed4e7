"""The recipe: optimisers, learning rates, groups, averages, clipping, smoothing. Known answers are torch's."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from documented import FENCE
from torch import nn

from ltpipe.config.spec import Refused, menu_names, parse
from ltpipe.interface.phases import Phase
from ltpipe.methods import ce, dro_lt
from ltpipe.rates import constant, cosine, linear, one_cycle, steps
from ltpipe.recipe.cell import LATER, SCRATCH, code_modules, recipe
from ltpipe.recipe.choices import OptimiserChoice
from ltpipe.recipe.run import Run
from ltpipe.recipe.schedule import COMPARED, Schedule
from ltpipe.storage.identity import digest
from ltpipe.training import average, checkpoint, groups, loop, optimiser

BASE = {"epochs": 3, "batch": 8, "lr": 0.1, "weight_decay": 0.0}
RATES, OPTIMISERS = menu_names("ltpipe.rates"), menu_names("ltpipe.optimisers")
# What the recipe of a test of every optimiser has beside its name; a new file needs an entry only if it needs one.
OPTIONS = {"sam": {"optimiser_options": {"rho": 0.1}}}


def schedule(**changes):
    return parse(Schedule, BASE | changes, "schedule")


def refused(**changes):
    with pytest.raises(Refused) as error:
        schedule(**changes)
    return error.value.message


# learning rates


def torchs(make, epochs):
    """Return the learning rates of a scheduler of torch, whose lr is 0.1, position by position."""
    reference = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, found = make(reference), []
    for _ in range(epochs):
        found.append(reference.param_groups[0]["lr"])
        reference.step()
        scheduler.step()
    return found


LR = torch.optim.lr_scheduler
KNOWN = {
    "constant": (constant.Config(), lambda o: LR.ConstantLR(o, factor=1.0)),
    "cosine": (cosine.Config(), lambda o: LR.CosineAnnealingLR(o, 12)),
    "cosine to a floor": (cosine.Config(floor=0.2), lambda o: LR.CosineAnnealingLR(o, 12, eta_min=0.02)),
    "linear": (linear.Config(), lambda o: LR.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=12)),
    "linear to a floor": (linear.Config(floor=0.3), lambda o: LR.LinearLR(o, 1.0, 0.3, total_iters=12)),
    "steps": (steps.Config(factors={4: 0.1, 9: 0.01}), lambda o: LR.MultiStepLR(o, [4, 9], gamma=0.1)),
    "one_cycle": (one_cycle.Config(), lambda o: LR.OneCycleLR(o, 0.1, total_steps=12, cycle_momentum=False)),
    "one_cycle, other options": (
        one_cycle.Config(rise=0.5, start=0.5, end=0.05),
        lambda o: LR.OneCycleLR(
            o, 0.1, total_steps=12, pct_start=0.5, div_factor=2, final_div_factor=10, cycle_momentum=False
        ),
    ),
}


@pytest.mark.parametrize("case", KNOWN)
def test_a_rule_gives_the_learning_rates_of_torchs_scheduler(case):
    decay, make = KNOWN[case]
    wanted = torchs(make, 12)
    by_epoch = [optimiser.learning_rate(Phase(12, 0.1, decay=decay), epoch) for epoch in range(12)]
    assert by_epoch == pytest.approx(wanted, rel=1e-9, abs=1e-15)
    if case == "steps":  # boundaries are epochs, however often lr moves
        decay = steps.Config(factors={1: 0.1, 2: 0.1, 3: 0.01})
        wanted = torchs(lambda o: LR.MultiStepLR(o, [3, 9], gamma=0.1), 12)
    phase = Phase(4, 0.1, decay=decay, lr_every="step")
    by_step = [optimiser.learning_rate(phase, epoch, step, 3) for epoch in range(4) for step in range(3)]
    assert by_step == pytest.approx(wanted, rel=1e-9, abs=1e-15)


def test_every_rule_has_a_known_answer():
    assert {case.partition(" ")[0].strip(",") for case in KNOWN} == set(RATES)


def test_a_warm_up_rises_by_epochs_or_by_steps():
    phase = Phase(10, 0.3, warmup=2, decay=constant.Config())
    assert [optimiser.learning_rate(phase, epoch, step, 4) for epoch, step in ((0, 0), (0, 3), (1, 0), (2, 0))] == [
        *(0.3 * 1 / 2,) * 2,
        0.3,
        0.3,
    ]
    phase = replace(phase, warmup=1.5, lr_every="step")
    rates = [optimiser.learning_rate(phase, n // 4, n % 4, 4) for n in range(8)]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.3, 0.3])
    linear_before = optimiser.learning_rate(replace(phase, lr_every="epoch", warmup=1), 0, 3, 4)
    assert linear_before == 0.3, "one epoch of warm-up by epochs is no warm-up"


def test_the_loop_sets_the_rate_of_each_step(tmp_path, monkeypatch):
    """Also in the second group, whose lr has a factor; the log has the rate of the epoch's last step."""
    seen, step = [], optimiser.Optimiser.step

    def spy(self, again):
        seen.append([group["lr"] for group in self.param_groups])
        step(self, again)

    monkeypatch.setattr(optimiser.Optimiser, "step", spy)
    asked = tiny.SCHEDULE.with_changes(
        {"lr_every": "step", "decay": "linear", "parts": {"head": {"lr_scale": 10}}, "save_every": None}
    )
    history = loop.fit(tiny.task(tmp_path, "ce", schedule=asked))[1]
    rates = [0.05 * (1 - n / 6) for n in range(6)]
    assert [lr for lr, _ in seen] == pytest.approx(rates) and [lr for _, lr in seen] == pytest.approx(
        [10 * lr for lr in rates]
    )
    assert [row["lr"] for row in history] == pytest.approx([rates[2], rates[5]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": "cosin"}, "no 'cosin' in ltpipe.rates; valid names: constant, cosine, linear, one_cycle, steps"),
        ({"decay": "steps"}, "write the epochs and factors of steps themselves, e.g. decay: {160: 0.01"),
        ({"decay": {}}, "decay: {} changes nothing: write constant"),
        (
            {"decay": {1: 0.1}, "decay_options": {"floor": 0.1}},
            "decay_options: floor: a mapping in decay has no options",
        ),
        ({"decay_options": {"flor": 0.1}}, "decay_options: unknown key flor; valid keys: floor"),
        ({"decay": "constant", "decay_options": {"floor": 0.1}}, "unknown key floor"),
        ({"decay": "linear", "decay_options": {"floor": 2}}, "decay_options.floor: Input should be less than 1"),
        ({"decay": "one_cycle"}, "would train the last epoch at almost no rate; write lr_every: step"),
        ({"decay": "one_cycle", "warmup": 1}, "one_cycle has a warm-up of its own; write warmup: 0"),
        ({"warmup": 0.5}, "warmup: 0.5 is no whole number of epochs; that needs lr_every: step"),
        ({"warmup": float("inf"), "lr_every": "step"}, "warmup.float: Input should be a finite number"),
        ({"lr_every": "batch"}, "lr_every: Input should be 'epoch' or 'step'"),
    ],
)
def test_a_rate_that_training_would_not_follow_is_refused(changes, message):
    assert message in refused(**changes)


# optimisers


def nets(count=2):
    found = []
    for _ in range(count):
        torch.manual_seed(0)
        found.append(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
    return found


def grouped(net, **shared):
    """Return two groups with a learning rate and a weight decay each."""
    first, second = (list(part.parameters()) for part in (net[0], net[2]))
    return [
        {"params": first, "lr_scale": 1.0, "weight_decay": 5e-2, **shared},
        {"params": second, "lr_scale": 0.5, "weight_decay": 0.0, **shared},
    ]


def made(name, net, options=None, shared=None, clip=None):
    return optimiser.Optimiser(
        OptimiserChoice(optimiser=name, options=options or {}), grouped(net, **shared or {}), clip
    )


def loss_of(net, step):
    return net(torch.arange(6.0).reshape(2, 3) / 6 + step / 10).square().sum()


def take_steps(ours, mine, theirs, step_theirs, count=6):
    """Take steps with both, ours from a saved state in the middle, with another lr in each."""
    for step in range(count):
        if step == count // 2:
            state, fresh = mine.state_dict(), made(mine.name, ours, mine.config.model_dump())
            fresh.param_groups, fresh.clip_norm = mine.param_groups, mine.clip_norm
            fresh.load_state_dict(state)
            mine = fresh
        mine.set_lr(lr := 0.05 / (step + 1))
        mine.zero_grad()
        loss_of(ours, step).backward()
        mine.step(lambda step=step: loss_of(ours, step).backward())
        step_theirs(step, lr)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other) and one.isfinite().all()


def with_torch(net, reference):
    """Return the function that takes a step with a class of torch.optim."""

    def step(number, lr):
        for group, scale in zip(reference.param_groups, (1.0, 0.5), strict=True):
            group["lr"] = lr * scale
        reference.zero_grad()
        loss_of(net, number).backward()
        reference.step()

    return step


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.0, False)])
def test_sgd_takes_the_steps_of_torchs_own_class(momentum, nesterov):
    ours, theirs = nets()
    reference = torch.optim.SGD(plain(theirs), lr=0.1, momentum=momentum, nesterov=nesterov)
    mine = made("sgd", ours, shared={"momentum": momentum, "nesterov": nesterov})
    take_steps(ours, mine, theirs, with_torch(theirs, reference))


def plain(net):
    return [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in grouped(net)]


@pytest.mark.parametrize("options", [{}, {"betas": (0.8, 0.95), "eps": 1e-4}])
def test_adamw_takes_the_steps_of_torchs_own_class(options):
    ours, theirs = nets()
    reference = torch.optim.AdamW(plain(theirs), lr=0.1, **options)
    take_steps(ours, made("adamw", ours, options), theirs, with_torch(theirs, reference))


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_sam_takes_the_base_s_step_with_the_gradient_at_the_ascended_weights(base):
    """The formulas of Foret et al., 2021, with a class of torch.optim for the step."""
    ours, theirs = nets()
    shared = {"momentum": 0.9, "nesterov": False} if base == "sgd" else {}
    kind = torch.optim.SGD if base == "sgd" else torch.optim.AdamW
    reference = kind(plain(theirs), lr=0.1, **{k: v for k, v in shared.items() if k == "momentum"})

    def step(number, lr):
        parameters, rho = list(theirs.parameters()), 0.3
        gradients = torch.autograd.grad(loss_of(theirs, number), parameters)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        kept = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p += g * (rho / (norm + 1e-12))
        second = torch.autograd.grad(loss_of(theirs, number), parameters)
        with torch.no_grad():
            for p, g, value in zip(parameters, second, kept, strict=True):
                p.copy_(value)
                p.grad = g
        for group, scale in zip(reference.param_groups, (1.0, 0.5), strict=True):
            group["lr"] = lr * scale
        reference.step()

    take_steps(ours, made("sam", ours, {"rho": 0.3, "base": base}, shared), theirs, step)


def test_a_parameter_without_a_gradient_stays():
    (net,) = nets(1)
    before = [p.detach().clone() for p in net.parameters()]
    mine = made("adamw", net)
    mine.set_lr(0.1)
    net[0](torch.ones(1, 3)).sum().backward()
    mine.step(lambda: None)
    moved = [not torch.equal(p, old) for p, old in zip(net.parameters(), before, strict=True)]
    assert moved == [True, True, False, False] and mine.states[1] == [{}, {}]


def test_the_gradient_is_clipped_as_torch_does_it():
    ours, theirs = nets()
    reference, shared = torch.optim.SGD(plain(theirs), lr=0.1), {"momentum": 0.0, "nesterov": False}

    def step(number, lr):
        for group, scale in zip(reference.param_groups, (1.0, 0.5), strict=True):
            group["lr"] = lr * scale
        reference.zero_grad()
        loss_of(theirs, number).backward()
        assert nn.utils.clip_grad_norm_(theirs.parameters(), 0.01) > 0.01
        reference.step()

    take_steps(ours, made("sgd", ours, shared=shared, clip=0.01), theirs, step)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser": "adam"}, "no 'adam' in ltpipe.optimisers; valid names: adamw, sam, sgd"),
        ({"optimiser": "adamw", "momentum": 0.9}, "momentum: 0.9: optimiser adamw does not follow it; leave it out"),
        ({"optimiser": "adamw", "nesterov": False}, "nesterov: False: optimiser adamw does not follow it"),
        (
            {"optimiser": "sam", "optimiser_options": {"base": "adamw"}, "nesterov": True, "momentum": 0.5},
            "momentum: 0.5, nesterov: True: optimiser sam does not follow it",
        ),
        ({"optimiser_options": {"betas": [0.9, 0.99]}}, "optimiser_options: unknown key betas"),
        (
            {"optimiser": "adamw", "optimiser_options": {"betas": [0.9, 1.0]}},
            "optimiser_options.betas.1: Input should be",
        ),
        ({"optimiser": "sam", "optimiser_options": {"base": "sam"}}, "base: sam cannot be around sam"),
        ({"optimiser": "sam", "optimiser_options": {"base": "x"}}, "no 'x' in ltpipe.optimisers; valid names: adamw"),
        ({"optimiser": "sam", "optimiser_options": {"base_options": {"eps": 1}}}, "base_options of sgd: "),
        ({"parts": {"neck": {"lr_scale": 2}}}, "parts.neck"),
        ({"ema": 1.0}, "ema: Input should be less than 1"),
        ({"clip_norm": 0}, "clip_norm: Input should be greater than 0"),
        ({"layer_decay": 1.5}, "layer_decay: Input should be less than or equal to 1"),
    ],
)
def test_a_key_that_the_optimiser_does_not_follow_is_refused(changes, message):
    assert message in refused(**changes)


def test_keys_that_only_some_optimisers_follow_have_their_defaults_there():
    sgd, adamw = schedule(), schedule(optimiser="adamw", momentum=None)
    assert (sgd.momentum, sgd.nesterov) == (0.9, False) and (adamw.momentum, adamw.nesterov) == (None, None)
    assert schedule(**sgd.model_dump()) == sgd and Schedule.model_validate(adamw.model_dump()) == adamw
    around = schedule(optimiser="sam", momentum=0.5)
    assert (around.momentum, around.nesterov) == (0.5, False)


def test_a_run_may_have_an_optimiser_and_a_rule_of_its_own():
    whole = schedule(momentum=0.5, decay="linear", decay_options={"floor": 0.1})
    adamw = whole.with_changes({"optimiser": "adamw", "optimiser_options": {"eps": 1e-6}})
    assert adamw.momentum is None and adamw.decay_options == {"floor": 0.1}
    assert adamw.with_changes({"optimiser": "adamw", "optimiser_options": {"eps": 1e-6}}) == adamw
    assert adamw.with_changes({"optimiser": "sgd"}).momentum == 0.9
    assert whole.with_changes({"optimiser": "sam"}).momentum == 0.5  # its base follows it
    assert whole.with_changes({"decay": "one_cycle", "lr_every": "step"}).decay_options == {}
    around = whole.with_changes({"optimiser": "sam"})
    assert around.with_changes({"optimiser_options": {"base": "adamw"}}).momentum is None
    with pytest.raises(Refused, match=r"momentum: 0\.7: optimiser adamw does not follow it"):
        whole.with_changes({"optimiser": "adamw", "momentum": 0.7})


def test_no_optimiser_imports_the_compiler():
    """Its import is the 1.4 s for which torch.optim's classes are not used."""
    code = """
import sys, torch
from ltpipe.config.spec import menu_names
from ltpipe.recipe.choices import OptimiserChoice
from ltpipe.training.optimiser import Optimiser
for name in menu_names("ltpipe.optimisers"):
    p = torch.nn.Parameter(torch.ones(2))
    group = {"params": [p], "lr_scale": 1.0, "weight_decay": 0.1, "momentum": 0.9, "nesterov": False}
    made = Optimiser(OptimiserChoice(optimiser=name), [group], 1.0)
    made.set_lr(0.1)
    p.sum().backward()
    made.step(lambda: p.sum().backward())
    assert (p != 1).all()
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# groups


def of(name="ce", options=None, start=None, phase=0, **changes):
    """Return the groups of a phase of a method: lr_scale, weight decay, names of the parameters."""
    asked = tiny.SCHEDULE.with_changes({"weight_decay": 0.01} | changes)
    built = tiny.built(tiny.task("none", name, options or tiny.example(name), schedule=asked, start=start))
    names = {parameter: key for key, parameter in built.network.named_parameters()}
    found = groups.build(built.network, built.method, built.phases[phase], asked)
    return [(g["lr_scale"], g["weight_decay"], [names[p] for p in g["params"]]) for g in found]


def test_without_options_each_part_is_one_group_in_its_own_order():
    backbone, head = of()
    assert backbone[:2] == head[:2] == (1.0, 0.01) and head[2] == ["head.weight", "head.bias"]
    assert backbone[2] == [key for key, _ in tiny.built(tiny.task("none", "ce")).network.named_parameters()][:-2]


def test_parts_have_a_learning_rate_and_a_weight_decay_of_their_own():
    parts = {"backbone": {"lr_scale": 0.1}, "head": {"weight_decay": 0.5}}
    assert [group[:2] for group in of(parts=parts)] == [(0.1, 0.01), (1.0, 0.5)]
    assert of("lws", start=tiny.cross_entropy(), parts={"own": {"lr_scale": 3}}) == [(3.0, 0.01, ["own.scale"])]


def test_norms_and_biases_are_spared_weight_decay():
    found = of(decay_norms_and_biases=False)
    decays = {name: decay for _, decay, names in found for name in names}
    spared = {name for name, decay in decays.items() if decay == 0}
    assert spared == {name for name in decays if name.endswith(("bias", ".1.weight"))} and "head.bias" in spared
    assert {decays[name] for name in decays.keys() - spared} == {0.01}


def test_a_norm_s_weight_is_spared_wherever_it_lies():
    part = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 2), nn.GroupNorm(1, 2), nn.Linear(2, 1, bias=False))
    found = list(groups.norms_and_biases(part))
    assert [tuple(p.shape) for p in found] == [(3,), (3,), (2,), (2,), (2,)]


@pytest.mark.parametrize("method", ["ce", "ride", "bbn", "lff"])
def test_earlier_layers_learn_more_slowly(method):
    """Layer i of the L layers, from 1, has 0.5^(L + 1 - i); branches lie side by side; head and own have 1."""
    scales = {name: scale for scale, _, names in of(method, layer_decay=0.5) for name in names}
    blocks = [name for name in scales if name.startswith("backbone.")]

    def layer(name):
        """Number of the block on the way from the image: the cnn has three."""
        trunk, place, *rest = name.removeprefix("backbone.").split(".")
        shared = {"ce": 1, "ride": 1, "bbn": 2, "lff": 0}[method]
        return int(place) + 1 if trunk == "trunk" else shared + int(rest[0]) + 1

    expected = {"ce": 3, "ride": 3, "bbn": 3, "lff": 3}[method]
    assert {layer(name) for name in blocks} <= set(range(1, expected + 2))
    numbers = sorted({layer(name) for name in blocks})
    for name in blocks:
        assert scales[name] == 0.5 ** (len(numbers) - numbers.index(layer(name))), name
    assert all(scales[name] == 1 for name in scales if not name.startswith("backbone."))


def test_a_backbone_that_states_no_layers_or_not_all_is_refused():
    with pytest.raises(Refused, match=r"layer_decay: the backbone \(Linear\) does not state the order of its layers"):
        groups.layer_scales(nn.Linear(2, 2), 0.5)
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net.layers = lambda: [[net[1]]]
    with pytest.raises(Refused, match=r"layer_decay: 0.weight is in no layer of the backbone \(Sequential\)"):
        groups.layer_scales(net, 0.5)


def test_what_a_method_asks_for_its_own_parameters_is_honoured(monkeypatch):
    monkeypatch.setattr(dro_lt.Method, "own_group", lambda self: {"weight_decay": 0.0, "lr_scale": 0.25})
    start = tiny.cross_entropy()
    assert of("dro_lt", {}, start)[1] == (0.25, 0.0, ["own.radius"])
    assert of("dro_lt", {}, start, decay_norms_and_biases=False)[-1] == (0.25, 0.0, ["own.radius"])
    monkeypatch.setattr(dro_lt.Method, "own_group", lambda self: {"weight_decay": 0.3})
    assert of("dro_lt", {}, start, parts={"own": {"lr_scale": 2}})[1] == (2.0, 0.3, ["own.radius"])


@pytest.mark.parametrize(
    ("part", "stated", "named"),
    [
        ("own", {"weight_decay": 0.1}, "own: weight_decay"),
        ("own", {"lr_scale": 3}, "own: lr_scale"),
        ("backbone", {"weight_decay": 0.1, "lr_scale": 2}, "backbone: weight_decay"),
    ],
)
def test_what_method_and_recipe_both_set_is_refused(part, stated, named, monkeypatch):
    """dro_lt states the weight decay of its phases, and here the rate of its radii."""
    monkeypatch.setattr(dro_lt.Method, "own_group", lambda self: {"weight_decay": 0.0, "lr_scale": 0.5})
    with pytest.raises(Refused, match=rf"schedule\.parts\.{named} is set by ltpipe\.methods\.dro_lt itself"):
        of("dro_lt", {}, tiny.cross_entropy(), parts={part: stated})


# the average of the weights


def test_the_average_forgets_its_beginning():
    assert [average.share(0.5, step) for step in (1, 2, 8, 9)] == [2 / 11, 3 / 12, 0.5, 0.5]


def test_validated_and_returned_is_the_average(tmp_path, monkeypatch):
    """By the formula, from the weights that a run without it has after each step; buffers of batch norm too."""
    asked = tiny.SCHEDULE.with_changes({"ema": 0.7, "save_every": None})
    without = asked.with_changes({"ema": None})
    taken, step = [], optimiser.Optimiser.step
    task = tiny.task(tmp_path, "ce", schedule=without)
    before = {k: v.clone() for k, v in tiny.built(task).network.state_dict().items()}
    states, after = [], loop._initial_state

    def keep(task):
        states.append(after(task))
        return states[-1]

    def spy(self, again):
        step(self, again)
        taken.append({k: v.clone() for k, v in states[-1].network.state_dict().items()})

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_initial_state", keep)
        patch.setattr(optimiser.Optimiser, "step", spy)
        plain_weights, plain_history, _, _ = loop.fit(task)
    for number, weights in enumerate(taken, 1):
        kept = average.share(0.7, number)
        before = {k: kept * before[k] + (1 - kept) * v if v.is_floating_point() else v for k, v in weights.items()}
    weights, history, _, _ = loop.fit(tiny.task(tmp_path, "ce", schedule=asked))
    assert weights.keys() == before.keys() == plain_weights.keys()
    for key, value in before.items():
        assert torch.allclose(weights[key], value, atol=1e-6), key
        assert not value.is_floating_point() or not torch.equal(weights[key], plain_weights[key]), key
    train = ("loss", "train_accuracy", "lr")
    assert [[row[k] for k in train] for row in history] == [[row[k] for k in train] for row in plain_history]


def test_the_validation_sees_the_average_and_gives_the_weights_back(tmp_path):
    task = tiny.task(tmp_path, "tde", tiny.example("tde"), schedule=tiny.SCHEDULE.with_changes({"ema": 0.9}))
    state = loop._initial_state(task)
    before = {k: v.clone() for k, v in state.network.state_dict().items()}
    for value in state.average.values.values():
        value.fill_(0.5)
    with state.average.shown():
        inside = {k: v.clone() for k, v in state.network.state_dict().items()}
    assert tiny.same(before, state.network.state_dict())
    averaged = {k for k, v in inside.items() if v.is_floating_point() and (v == 0.5).all()}
    own = {k for k in before if k.startswith("own.")}
    assert averaged == {k for k, v in before.items() if v.is_floating_point()} - own and own


def test_the_log_says_that_averages_are_validated(tmp_path, caplog):
    caplog.set_level("INFO", "ltpipe.training")
    loop.fit(tiny.task(tmp_path, "ce", schedule=tiny.SCHEDULE.with_changes({"ema": 0.9, "save_every": None})))
    assert "validated and exported are averages of the weights (ema 0.9)" in caplog.text


# label smoothing

SMOOTHED = {"ce", "mixup", "randaug", "crt", "tde"}


@pytest.mark.parametrize("name", tiny.NAMES)
def test_labels_are_smoothed_where_the_loss_is_cross_entropy_and_refused_by_name_elsewhere(name, tmp_path):
    asked = tiny.SCHEDULE.with_changes({"label_smoothing": 0.2, "save_every": None})
    task = tiny.task(tmp_path, name, tiny.example(name), schedule=asked)
    trains = bool(tiny.built(task).phases)
    if name in SMOOTHED or not trains:
        smooth = loop.fit(task)
        plain = loop.fit(replace(task, schedule=asked.with_changes({"label_smoothing": 0.0})))
        assert tiny.same(smooth[0], plain[0]) != trains
        return
    with pytest.raises(Refused, match=f"label_smoothing: 0.2: the loss of {name} is not the mean cross-entropy"):
        loop.fit(task)
    with pytest.raises(Refused, match=name):
        asked.require_method(task.run, 4)


def test_the_smoothed_loss_is_torchs():
    built = tiny.built(tiny.task("none", "ce"))
    method = ce.Method(built.method.config, replace(tiny.PROBLEM, label_smoothing=0.3))
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    target = 0.7 * nn.functional.one_hot(labels, 4) + 0.3 / 4
    wanted = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    out, batch = type("Out", (), {"logits": logits}), type("Batch", (), {"labels": labels})
    assert torch.allclose(method.loss(out, batch)["loss"], wanted)


# resuming

EVERYTHING = {"accumulate": 2, "ema": 0.9, "clip_norm": 1.0, "lr_every": "step", "decay": "linear", "layer_decay": 0.7}


def resumed(folder, monkeypatch, task):
    """Return the result of a run that is killed after its first resume point of each process, until it ends."""
    result, kills = None, 0
    while result is None:
        monkeypatch.setattr(checkpoint, "save_resume", tiny.Killer(after=1) if kills % 2 else tiny.Killer(before=2))
        try:
            result = loop.fit(task)
        except tiny.Killed:
            kills += 1
    return result, kills


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_every_method_with_every_optimiser_resumes_bit_for_bit(name, optimizer, tmp_path, monkeypatch):
    """With the average of the weights, micro-batches, clipping and a rate by steps; killed at every step."""
    asked = {"optimiser": optimizer, **OPTIONS.get(optimizer, {}), **EVERYTHING}
    task = tiny.task(tmp_path, name, tiny.example(name), schedule=tiny.SCHEDULE.with_changes(asked))
    unsaved = task.schedule.with_changes({"save_every": 10**6})
    wanted = loop.fit(replace(task, schedule=unsaved))
    result, kills = resumed(tmp_path, monkeypatch, task)
    assert kills > 2 or not tiny.built(task).phases
    assert tiny.same(result[0], wanted[0]) and result[1:3] == wanted[1:3]


def test_a_resume_point_of_another_optimiser_is_refused_in_one_line(tmp_path, monkeypatch, caplog):
    """The fingerprint differs already; this is what stands behind it."""
    adamw = tiny.task(tmp_path, "ce", schedule=tiny.SCHEDULE.with_changes({"optimiser": "adamw"}))
    with monkeypatch.context() as patch, pytest.raises(tiny.Killed):
        patch.setattr(checkpoint, "save_resume", tiny.Killer(after=2))
        loop.fit(adamw)
    sgd = replace(tiny.task(tmp_path, "ce"), fingerprint=adamw.fingerprint)
    assert loop.fit(sgd)[1] and "its optimiser is adamw, not sgd), starting over" in caplog.text
    monkeypatch.undo()


def test_accumulated_gradients_give_adamw_the_step_of_the_whole_batch(tmp_path, monkeypatch):
    """Without the batch's statistics, as in test_micro_batches."""

    def forward(self, x):
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", forward)
    # eps: a gradient of rounding errors alone would otherwise move a weight by lr
    one = tiny.SCHEDULE.with_changes(
        {"optimiser": "adamw", "optimiser_options": {"eps": 1e-3}, "lr": 0.01, "save_every": None}
    )
    whole = loop.fit(tiny.task(tmp_path, "ce", schedule=one))[0]
    parts = loop.fit(tiny.task(tmp_path, "ce", schedule=one.with_changes({"accumulate": 4})))[0]
    assert all(torch.allclose(parts[key], value, rtol=1e-3, atol=1e-4) for key, value in whole.items())


def test_sam_s_second_pass_leaves_buffers_and_log_as_the_first_left_them(tmp_path):
    """A rho of almost nothing gives the training of the base, with statistics and logged losses to the bit."""
    plain_run = loop.fit(tiny.task(tmp_path, "tde", tiny.example("tde")))
    asked = tiny.SCHEDULE.with_changes({"optimiser": "sam", "optimiser_options": {"rho": 1e-30}, "save_every": None})
    around = loop.fit(tiny.task(tmp_path / "sam", "tde", tiny.example("tde"), schedule=asked))
    assert tiny.same(plain_run[0], around[0]) and plain_run[1] == around[1]
    farther = asked.with_changes({"optimiser_options": {"rho": 0.5}})
    assert not tiny.same(
        loop.fit(tiny.task(tmp_path / "far", "tde", tiny.example("tde"), schedule=farther))[0], around[0]
    )


# the page on extending


def test_the_optimiser_and_the_rate_of_the_page_on_extending_are_whole(tmp_path, monkeypatch):
    """One file each: what the page shows trains, resumes bit for bit, and is refused an option that it has not."""
    import ltpipe.optimisers
    import ltpipe.rates

    page = (Path(__file__).parents[1] / "docs/extending.md").read_text()
    blocks = [block for language, block in FENCE.findall(page) if language == "python"]
    for menu, name, mark in ((ltpipe.optimisers, "lion", "def update("), (ltpipe.rates, "root", "Rate")):
        (code,) = (block for block in blocks if mark in block)
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.py").write_text(code)
        monkeypatch.setattr(menu, "__path__", [*menu.__path__, str(folder)])
    assert "unknown key rho; valid keys: now, kept" in refused(optimiser="lion", optimiser_options={"rho": 1})
    asked = tiny.SCHEDULE.with_changes({"optimiser": "lion", "decay": "root", "ema": 0.9, "lr": 0.001})
    task = tiny.task(tmp_path, "dro_lt", tiny.example("dro_lt"), schedule=asked)
    wanted = loop.fit(replace(task, schedule=asked.with_changes({"save_every": None})))
    result, kills = resumed(tmp_path, monkeypatch, task)
    assert kills > 2 and tiny.same(result[0], wanted[0]) and result[1] == wanted[1]
    assert [row["lr"] for row in result[1][:2]] == pytest.approx([0.001, 0.001 * 2**-0.5])


# identity

CHANGES = {
    "optimiser": "adamw",
    "decay": "linear",
    "lr_every": "step",
    "layer_decay": 0.5,
    "parts": {"head": {"lr_scale": 2}},
    "decay_norms_and_biases": False,
    "clip_norm": 1.0,
    "ema": 0.9,
    "label_smoothing": 0.1,
    "decay_options": {"floor": 0.1},
}


# Digests from the code before there were optimisers and rules to choose: accepted numbers are of recipes like these.
OLD = {
    "939e526bbb12": {},
    "1c18b5906676": {"warmup": 5, "decay": {160: 0.01, 180: 1e-4}, "momentum": 0.9, "weight_decay": 2e-4},
    "9aae76f35d4c": {"momentum": 0.0, "nesterov": False, "decay": "cosine"},
    "33447bb51042": {"nesterov": True, "precision": "bf16", "accumulate": 2},
}


@pytest.mark.parametrize("was", OLD)
def test_an_old_recipe_keeps_its_digest(was):
    assert digest(recipe(Run(method="ce"), schedule(**OLD[was]), tiny.MODEL)) == was


@pytest.mark.parametrize("key", CHANGES)
def test_a_new_key_is_part_of_the_recipe_where_it_does_something_and_only_there(key):
    run, model = Run(method="ce"), tiny.MODEL
    usual, changed = recipe(run, schedule(), model), recipe(run, schedule(**{key: CHANGES[key]}), model)
    assert key in changed["schedule"] and changed != usual
    assert key not in usual["schedule"] or key not in LATER


def test_every_key_is_compared_or_known_not_to_be():
    """A claim compares runs of one recipe: a new key is part of that, or is named here."""
    apart = SCRATCH | {"threads", "augment"}  # the augmentation is compared phase by phase
    assert set(COMPARED) | apart == set(Schedule.model_fields) and not set(COMPARED) & apart


def test_the_code_of_a_cell_is_that_of_its_optimiser_and_rule():
    run = Run(method="ce", schedule={"optimiser": "sam", "optimiser_options": {"base": "adamw"}, "decay": {1: 0.1}})
    named = code_modules(run, schedule(), tiny.MODEL)
    wanted = {"ltpipe.optimisers.sam", "ltpipe.optimisers.adamw", "ltpipe.rates.steps"}
    assert wanted <= named and "ltpipe.optimisers.sgd" not in named


def test_a_benchmark_names_the_optimisers_of_its_runs(spec):
    """What DVC watches is built from it: an environment that chooses another one is refused."""
    ce = spec.runs["ce"].model_copy(update={"train": Run(method="ce", schedule={"optimiser": "adamw"})})
    changed = spec.model_copy(update={"runs": {**spec.runs, "ce": ce}})
    assert changed.modules() - spec.modules() == {"ltpipe.optimisers.adamw"}


def test_keys_that_a_method_with_phases_of_its_own_ignores_are_named():
    changed = {"lr_every": "step", "decay": "linear", "decay_options": {"floor": 0.1}, "ema": 0.5}
    run = Run(method="crt", start_from="ce", schedule=changed | {"parts": {"backbone": {"lr_scale": 2}}})
    assert set(schedule().unused_keys(run, 4)) == {"lr_every", "decay", "decay_options", "parts.backbone"}
    assert schedule().unused_keys(Run(method="ce", schedule=changed), 4) == []
    adamw = {"optimiser": "adamw", "optimiser_options": {"eps": 1e-6}}
    assert schedule().unused_keys(Run(method="ce", schedule=adamw), 4) == []
    assert set(schedule().unused_keys(Run(method="tau_norm", start_from="ce", schedule=adamw), 4)) == set(adamw)
