"""`ltpipe latency`: what is computed of given times, and the exit codes; no test asserts a time."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from test_predict import build, facts

from ltpipe.latency import command, measure_alternately, summarise
from ltpipe.serving.reference import CHANNELS, SIZE, build_reference
from ltpipe.storage.identity import digest_bytes


def run(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments), "--rounds", "2"])


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(build(facts()))
    return path


def test_rounds_that_were_disturbed_do_not_move_the_ratio():
    found = summarise(np.array([0.2, 0.2, 20.0]), np.array([0.1, 7.0, 10.0]), 64)
    assert found["ratio"] == pytest.approx(2) and found["images_per_second"] == pytest.approx(320)
    assert found["milliseconds"] == pytest.approx(200)


def test_runs_take_turns_after_one_call_each():
    calls = []
    seconds = measure_alternately({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3 and [len(of) for of in seconds.values()] == [2, 2]


def test_the_reference_network_is_the_one_that_ratios_were_stated_with():
    assert digest_bytes(build_reference()) == "6c236ded4993f360"


def test_the_reference_network_costs_what_its_docstring_says():
    onnx.checker.check_model(onnx.load_from_string(build_reference()))
    size, channels, cost = SIZE, 3, 10 * CHANNELS[-1]
    for number, width in enumerate(CHANNELS):
        size //= 1 + number % 2
        cost += 9 * channels * width * size**2
        channels = width
    assert cost == 4_571_776


def test_the_result_states_provider_threads_size_and_both_batches(model, tmp_path):
    done = run(model, "--threads", 1, "--out", tmp_path / "latency.json")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "latency.json").read_text())
    assert (found["provider"], found["threads"]) == ("CPUExecutionProvider", 1)
    assert found["bytes"] == model.stat().st_size and list(found["batches"]) == ["1", "64"]
    assert all(row["ratio"] > 0 for row in found["batches"].values())


def test_a_model_slower_than_the_limit_exits_3_and_writes_the_result(model, tmp_path):
    done = run(model, "--max-ratio", 1e-9, "--out", tmp_path / "latency.json")
    assert done.exit_code == 3 and "batch 64: " in done.output
    assert len(json.loads((tmp_path / "latency.json").read_text())["slow"]) == 2
    assert run(model, "--max-ratio", 1e9).exit_code == 0


def test_what_is_no_model_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no model")
    done = run(tmp_path / "a.onnx", "--out", tmp_path / "latency.json")
    assert done.exit_code == 2 and "not a model" in done.output and not (tmp_path / "latency.json").exists()
