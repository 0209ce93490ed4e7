"""Every module of ltpipe.methods trains, moves what it should, repeats, resumes bit for bit and exports."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from ltpipe.config.spec import Refused, load_item, parse
from ltpipe.models.model import Model
from ltpipe.recipe.run import Run, untrained
from ltpipe.recipe.schedule import Schedule
from ltpipe.serving.export import Parity, compare, to_onnx, trace
from ltpipe.training import checkpoint, loop
from ltpipe.training import cost as cost_of
from ltpipe.training.scratch import discard
from ltpipe.training.train import train

# what the authors' code of DRO-LT does
PUBLISHED = {"centroids": "stream", "positive": "none", "epsilon_assignment": "reference", "radius_decay": True}
AUTHORS = {"scores": "epoch", "unseen": "zero", "centres": "normal", "prior": "data"}
AROUND = {
    "ifl_mixup": ("ifl", {"base": "mixup"}),
    "ifl_ldam": ("ifl", {"base": {"method": "ldam", "options": {"drw": 1}}, "centre": "cosine"}),
    "ifl_ride": ("ifl", {"base": "ride", "centre": "cosine", "streams": "triple"}),
    "ifl_tade": ("ifl", {"base": "tade", "steps": "fair"}),
    "ifl_tde": ("ifl", {"base": "tde", "streams": "single"}),
    "ifl_logit_adjust": ("ifl", {"base": "logit_adjust", "scores": "epoch"}),
    "ifl_post_hoc": ("ifl", {"base": {"method": "logit_adjust", "options": {"form": "post_hoc", "tau": "val"}}}),
    "ifl_randaug_ride": ("ifl", {"base": {"method": "randaug", "options": {"base": "ride"}}, "centres": "normal"}),
    "ifl_irm": ("ifl", {"penalty": "irm", "updates": "every", "scores": "epoch", "prior": "data"}),
    "dro_lt_started": ("dro_lt", {"radius": "per_class", "augment": "reference"}),
    "dro_lt_published_started": ("dro_lt", PUBLISHED),
    "randaug_dro_lt": ("randaug", {"base": {"method": "dro_lt", "options": {"feature_epochs": 1}}}),
    "crt_drift": ("crt", {"drift": True}),
    "ifl_authors": ("ifl", {"base": "balanced_softmax", **AUTHORS}),
    "ifl_ride_authors": ("ifl", {"base": "ride", "centre": "cosine", "centre_step": "gradient", **AUTHORS}),
    "ifl_mixup_authors": ("ifl", {"base": "mixup", **AUTHORS}),
    "bbn_authors": ("bbn", {"epoch_offset": -1, "draw": "replacement"}),
}
CASES = {name: (name, {}) for name in tiny.NAMES} | AROUND


@pytest.fixture
def case(request, tmp_path):
    method, options = CASES[request.param]
    start = tiny.cross_entropy() if request.param.endswith("started") else None
    return tiny.task(tmp_path, method, tiny.example(method) | options, start=start)


every = pytest.mark.parametrize("case", CASES, indirect=True)
each = pytest.mark.parametrize("name", tiny.NAMES)


@every
def test_trains_and_moves_what_it_should(case):
    before = tiny.built(case)
    weights, history, _, _ = loop.fit(case)
    assert len(history) == before.method.clock.epochs
    assert all(np.isfinite(value) for row in history for value in row.values())
    trained = {part for phase in before.phases for part in phase.trainable}
    kept = before.method.needs().keeps if case.start is not None else ()
    for name, value in before.network.named_parameters():
        part = name.split(".")[0]
        began = case.start[name] if part in kept else value.detach()
        moved = not torch.equal(weights[name], began)
        assert moved or part not in trained, f"{name} does not move"
        assert not moved or part in trained or not before.phases, f"{name} is frozen and moves"


@every
def test_resumes_bit_for_bit_from_every_step(case, monkeypatch):
    """Kill the run directly after a resume point, or one step later, in turn, until it ends by itself."""
    unsaved = tiny.SCHEDULE.model_copy(update={"save_every": 10**6})
    weights, history, facts, _ = loop.fit(replace(case, schedule=unsaved))
    monkeypatch.setattr(checkpoint, "save_resume", counter := tiny.Killer())
    loop.fit(case)
    discard(case.resume.parent)
    result, kills, saves = None, 0, counter.saves
    while result is None:
        killer = tiny.Killer(after=1) if kills % 2 else tiny.Killer(before=2)
        monkeypatch.setattr(checkpoint, "save_resume", killer)
        try:
            result = loop.fit(case)
        except tiny.Killed:
            kills += 1
    assert kills >= saves - 1
    assert tiny.same(result[0], weights)
    assert result[1:3] == (history, facts)


def check_exports(case):
    """Two checkpoints share the graph of an untrained network: each is right, and has the bytes of a graph of its own.

    The second checkpoint differs in every value: weights, statistics, and what the method chose (tau, priors).
    """
    trained, _, _, _ = loop.fit(case)
    other = {k: v * 1.25 + 0.125 if v.is_floating_point() else v for k, v in trained.items()}
    graph = trace(untrained(case.run, case.model, tiny.COUNTS), tiny.SIZE)
    pixels = np.random.RandomState(1).randint(0, 256, (70, tiny.SIZE, tiny.SIZE, 3)).astype(np.uint8)
    payloads = []
    for weights in (trained, other):
        servable = untrained(case.run, case.model, tiny.COUNTS)
        servable.network.load_state_dict(weights)
        payloads.append(to_onnx(servable, {"classes": list("abcd")}, graph))
        report = compare(servable, payloads[-1], pixels, Parity())
        assert report["agrees"], report
    assert payloads[0] != payloads[1]
    assert payloads[1] == to_onnx(servable, {"classes": list("abcd")}, trace(servable, tiny.SIZE))


@each
def test_exports(name, tmp_path):
    check_exports(tiny.task(tmp_path, name, tiny.example(name)))


@pytest.mark.slow
@pytest.mark.parametrize("case", AROUND, indirect=True)
def test_exports_around_a_base(case):
    check_exports(case)


@each
def test_docstring_begins_with_its_paper(name):
    first = load_item("ltpipe.methods", name).__doc__.split("\n\n")[0]
    assert re.search(r"\b(19|20)\d\d\b", first) or "Paper: none" in first, first


@each
def test_unknown_option_is_refused(name):
    with pytest.raises(Refused, match="unknown key nonsense; valid keys"):
        parse(Run, {"method": name, "split": "train", "options": {"nonsense": 1}}, "run")


def test_no_method_module_imports_torch():
    names = [f"ltpipe.methods.{name}" for name in tiny.NAMES] + ["ltpipe.interface.method"]
    code = f"import sys, importlib; [importlib.import_module(n) for n in {names}]; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("base", ["bbn", "crt", "dro_lt"])
def test_ifl_refuses_a_base_that_draws_its_images_itself(base, tmp_path):
    with pytest.raises(Refused, match="its base must have no streams of its own"):
        tiny.built(tiny.task(tmp_path, "ifl", {"base": base}))


def test_a_method_is_a_file(tmp_path, monkeypatch, manifest, images, spec):
    """A file of eight lines in a folder of the package is a method that trains."""
    (tmp_path / "smooth.py").write_text('''"""Label smoothing (Szegedy et al., CVPR 2016)."""
from ltpipe.interface import method
class Config(method.Spec):
    share: float = 0.1
class Method(method.Method):
    def loss(self, out, batch):
        from torch.nn.functional import cross_entropy
        return {"loss": cross_entropy(out.logits, batch.labels, label_smoothing=self.config.share)}
''')
    package = sys.modules["ltpipe.methods"]
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    run = Run(method="smooth", options={"share": 0.2}, split="train_glt")
    schedule = Schedule(epochs=1, batch=64, lr=0.05, weight_decay=0.0)
    model = Model(backbone="cnn", image=16, options={"width": 4})
    try:
        content, log, _ = train(
            manifest, images, tmp_path, run, schedule, model, 0, cell="digits_glt.smooth.s0", device="cpu"
        )
    finally:
        sys.modules.pop("ltpipe.methods.smooth", None)
    assert content and np.isfinite(log["loss"]).all()


def test_the_cost_of_a_training_is_that_of_all_its_processes_and_an_image_counts_once(tmp_path, monkeypatch):
    schedule = tiny.SCHEDULE.model_copy(update={"save_every": 1})
    whole = loop.fit(tiny.task(tmp_path / "whole", "ce", schedule=schedule))[3]
    case = tiny.task(tmp_path / "out", "ce", schedule=schedule)
    monkeypatch.setattr(checkpoint, "save_resume", tiny.Killer(after=2))
    with pytest.raises(tiny.Killed):
        loop.fit(case)
    monkeypatch.undo()
    saved = checkpoint.load(case.resume, case.fingerprint, checkpoint.RESUME)
    earlier = saved["cost"]
    assert 0 < earlier["stepping"] <= earlier["seconds"] < 600 and 0 < earlier["images"] < whole["images"]
    # as if the first process had taken that long, and had needed more memory
    long = earlier | {"seconds": 5000.0, "stepping": 4000.0, "host_bytes": 2**50, "device_bytes": 2**40}
    checkpoint.save_resume(case.resume, saved | {"cost": long})
    cost = loop.fit(case)[3]
    assert 5000 < cost["seconds"] < 5600 and 4000 < cost["stepping"] < cost["seconds"]
    assert cost["images"] == whole["images"] == 2 * 3 * 8  # epochs, steps, batch
    assert (cost["host_bytes"], cost["device_bytes"]) == (2**50, 2**40)


def test_memory_that_nobody_states_is_none_and_not_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(cost_of, "SELF", tmp_path / "nothing")
    cost = loop.fit(tiny.task(tmp_path, "ce"))[3]
    assert cost["host_bytes"] is None and cost["device_bytes"] is None
    assert cost["device"] and cost["threads"] >= 1


@pytest.mark.skipif(cost_of.host_peak() is None, reason="only Linux says how much memory a process needed")
def test_the_peak_of_a_cell_is_not_that_of_the_cell_before_it():
    before = np.ones(2**27, np.uint8)
    big = cost_of.host_peak()
    del before
    cost_of.forget_peaks(torch.device("cpu"))
    assert cost_of.host_peak() < big - 2**26
