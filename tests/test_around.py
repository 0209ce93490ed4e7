"""A method around another passes every hook on to its base; what the loop would not follow is refused."""

import inspect

import pytest
import tiny
import torch

from ltpipe.config.spec import Refused, Spec, parse
from ltpipe.interface.method import Around, Method
from ltpipe.interface.phases import Phase
from ltpipe.methods import ce
from ltpipe.recipe.schedule import Schedule
from ltpipe.training import optimiser

HOOKS = [name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_")]


class Recorder(Method):
    """A base that answers every hook with a token and remembers the call."""

    def __init__(self):
        super().__init__(Spec(), tiny.PROBLEM)
        self.calls = []


def answering(name):
    def hook(self, *arguments):
        self.calls.append((name, arguments))
        return torch.nn.Linear(1, 1) if name == "build" else f"answer of {name}"

    return hook


for name in HOOKS:
    setattr(Recorder, name, answering(name))


def test_the_hooks_are_those_of_the_interface():
    assert {
        "needs",
        "head",
        "build",
        "own_group",
        "smooths",
        "phases",
        "begin_epoch",
        "streams",
        "class_prior_changed",
    } <= set(HOOKS)
    assert {"batch", "loss", "after_step", "finish", "predict"} <= set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_a_method_around_another_passes_the_hook_on(name):
    base = Recorder()
    around = Around(Spec(), tiny.PROBLEM, base)
    arguments = tuple(f"argument {i}" for i in range(len(inspect.signature(getattr(Method, name)).parameters) - 1))
    answer = getattr(around, name)(*arguments)
    assert base.calls == [(name, arguments)]
    if name == "build":
        assert answer.base is base.own and isinstance(base.own, torch.nn.Linear)
    elif name not in ("begin_epoch", "class_prior_changed", "after_step"):  # these return nothing
        assert answer == f"answer of {name}"


def test_a_base_without_own_parameters_gets_an_empty_module():
    around = Around(Spec(), tiny.PROBLEM, Method(Spec(), tiny.PROBLEM))
    assert list(around.build(4).base.parameters()) == []


@pytest.mark.parametrize("decay", ["linear", "cosine", {}, None])
def test_a_decay_that_the_loop_does_not_know_is_refused(decay):
    with pytest.raises(ValueError, match=f"decay: {decay!r}; valid: Config\\(...\\) of a module of ltpipe.rates"):
        Phase(3, 0.1, decay=decay)


@pytest.mark.parametrize("options", [{"lr": 0.5}, {"weight_decay": 0.0, "momentum": 0.5}])
def test_an_option_of_own_parameters_that_the_loop_overwrites_is_refused(options, monkeypatch):
    monkeypatch.setattr(ce.Method, "own_group", lambda self: options, raising=False)
    built = tiny.built(tiny.task("none", "ce"))
    with pytest.raises(
        Refused, match=r"own_group of ltpipe\.methods\.ce: .* cannot be set; valid: lr_scale, weight_decay"
    ):
        optimiser.build(built.network, built.method, built.phases[0], tiny.SCHEDULE)


def test_nesterov_without_momentum_is_refused_as_torch_does():
    with pytest.raises(Refused, match="nesterov: true needs a momentum above 0"):
        parse(Schedule, {"epochs": 1, "batch": 2, "lr": 0.1, "weight_decay": 0, "momentum": 0, "nesterov": True}, "x")
