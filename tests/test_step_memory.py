"""The computed memory of a training step: bytes known by hand, and files and headers that agree with it."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ltpipe.benchmark import load
from ltpipe.pages.benchmarks import read_header

ROOT = Path(__file__).parents[1]
RESULT = json.loads((ROOT / "benchmarks/results/step_memory.json").read_text())
RUNS = [(name, run) for name, runs in RESULT["runs"].items() for run in runs]


@pytest.fixture(scope="module")
def step_memory():
    spec = importlib.util.spec_from_file_location("step_memory", ROOT / "benchmarks/step_memory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_saved_storage_is_counted_once_and_given_ones_never(step_memory):
    network, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(5, 4)
    saved = step_memory.Saved(network, x)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        network(x).sum()
    assert saved.bytes() == 5 * 8 * 4  # the ReLU's output, which the next layer saves too; input and weights are given


@pytest.fixture(scope="module")
def specs():
    return load(ROOT / "conf/base", list(RESULT["runs"]))


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_the_figures_are_of_the_files(name, run, specs, step_memory):
    step, figures = step_memory.Step.of(specs[name], run), RESULT["runs"][name][run]
    schedule = step.schedule
    of = {"batch": schedule.batch, "accumulate": schedule.accumulate, "precision": schedule.precision}
    again = f"python benchmarks/step_memory.py {name}"
    assert figures["images"] == of | {"side": step.spec.model.image}, again
    assert figures["resident"] == step_memory.resident_bytes(step), again
    assert figures["total"] == sum(figures[part] for part in ("saved", "batch", "weights", "resident"))


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_a_header_states_the_memory(name, run):
    header = " ".join(read_header(ROOT / f"conf/base/parameters/{name}.yml")).replace("# ", "")
    figures = RESULT["runs"][name][run]
    assert f"{figures['total_gib']}" in header
    assert f"{figures['total_gib_by_accumulate']['1']}" in header
    if "24 GB card" in header:  # and that it fits: 3 GiB of 24 are left for what is not counted
        assert figures["total_gib"] <= 21


def test_the_memory_is_linear_in_the_images(specs, step_memory):
    step = step_memory.Step.of(specs["mscoco_glt"], "ce")
    network, method = step.build()
    two, three, four = (step_memory.saved_bytes(step, network, method, images) for images in (2, 3, 4))
    assert four - three == three - two > 0
