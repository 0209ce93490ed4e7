"""MLflow: one run for each cell and judgement, written once; off by default; a tracker that fails loses nothing."""

import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from copied_project import call, copy_project

from ltpipe import tracking
from ltpipe.evaluation.measure import flatten
from ltpipe.evaluation.reported import Reported
from ltpipe.evaluation.summary import summarise
from ltpipe.storage.identity import digest_bytes
from ltpipe.storage.weights import pack_weights
from ltpipe.tracking import Tracked

NEEDS_MLFLOW = pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed: uv sync --extra mlflow")
ON = {"MLFLOW_ALLOW_FILE_STORE": "true", **tracking.QUIET}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A tracker in a folder: called, it returns its runs by name."""
    address = (tmp_path / "tracker").as_uri()
    for name, value in {**ON, "MLFLOW_TRACKING_URI": address}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return lambda: runs_of(address)


def client_of(address):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=address)


def runs_of(address):
    """The runs of a tracker by name; no name is there twice."""
    client = client_of(address)
    found = client.search_runs([client.get_experiment_by_name("ltpipe").experiment_id], max_results=1000)
    assert len({run.info.run_name for run in found}) == len(found), "a run appears twice"
    return {run.info.run_name: run for run in found}


def save(hook, owner, stage, inputs, outputs, catalog=None):
    """What Kedro calls for a node that ran and whose outputs are saved."""
    node = SimpleNamespace(name=f"{owner}.{stage}")
    hook.after_node_run(node=node, catalog=catalog, inputs=inputs, outputs=outputs)
    for name in outputs:
        hook.after_dataset_saved(dataset_name=name, node=node)


def train(hook, facts, epochs=3):
    """Finish a training; return the checkpoint's digest."""
    facts = {key: facts[key] for key in ("cell", "seed", "data", "code", "recipe", "parameters")}
    content = pack_weights({"w": torch.zeros(2)}, facts)
    log = pd.DataFrame({"epoch": range(1, epochs + 1), "loss": range(epochs), "val_accuracy": 50.0, "code": "c"})
    log.loc[0, "val_accuracy"] = float("nan")
    cell = facts["cell"]
    cost = {"seconds": 1.5, "images": 12, "device": "a processor"}
    save(hook, cell, "train", {}, {f"{cell}.checkpoint": content, f"{cell}.log": log, f"{cell}.cost": cost})
    return digest_bytes(content)


def evaluate(hook, made, checkpoint, folder):
    """Measure a cell; return its metrics."""
    predictions, name = made.predictions.copy(), made.metrics["cell"]
    predictions.attrs["facts"] = made.predictions.attrs["facts"] | {"checkpoint": checkpoint}
    metrics = made.metrics | {"checkpoint": checkpoint}
    (folder / "model.onnx").write_bytes(b"onnx")
    catalog = {f"{name}.onnx": SimpleNamespace(path=folder / "model.onnx")}
    save(hook, name, "measure", {f"{name}.predictions": predictions}, {f"{name}.metrics": metrics}, catalog)
    return metrics


@NEEDS_MLFLOW
def test_a_cell_is_one_run_with_recipe_curves_metrics_and_model(store, cell, tmp_path):
    hook, made = Tracked(), cell("ce", 0)
    facts = made.predictions.attrs["facts"]
    checkpoint = train(hook, facts, epochs=600)  # more than MLflow takes at once
    metrics = evaluate(hook, made, checkpoint, tmp_path)
    [(name, run)] = store().items()
    assert (name, run.info.status) == ("digits_glt.ce.s0", "FINISHED")
    assert run.data.params["run/method"] == "ce" and run.data.params["schedule/epochs"] == "60"
    tags = {key: run.data.tags[f"ltpipe.{key}"] for key in ("data", "code", "recipe", "seed", "checkpoint", "device")}
    asked = {key: str(facts[key]) for key in ("data", "code", "recipe", "seed")}
    assert tags == asked | {"checkpoint": checkpoint, "device": "a processor"}
    assert run.data.metrics["glt/accuracy/few"] == metrics["protocols"]["glt"]["accuracy"]["few"]
    expected = {key.replace(".", "/") for key, value in flatten(metrics["protocols"]).items() if value is not None}
    assert expected <= set(run.data.metrics) and run.data.metrics["training/seconds"] == 1.5
    client = client_of(os.environ["MLFLOW_TRACKING_URI"])
    curve = client.get_metric_history(run.info.run_id, "training/loss")
    assert [(value.step, value.value) for value in curve] == [(epoch + 1, epoch) for epoch in range(600)]
    assert len(client.get_metric_history(run.info.run_id, "training/val_accuracy")) == 599  # a gap is no number
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["model.onnx"]


@NEEDS_MLFLOW
def test_what_was_written_is_not_written_again(store, cell, tmp_path):
    made = cell("ce", 0)
    for _ in range(2):  # another process: nothing is remembered
        hook = Tracked()
        evaluate(hook, made, train(hook, made.predictions.attrs["facts"]), tmp_path)
    [run] = store().values()
    client = client_of(os.environ["MLFLOW_TRACKING_URI"])
    for name in ("training/loss", "glt/accuracy/all"):
        steps = [value.step for value in client.get_metric_history(run.info.run_id, name)]
        assert len(steps) == len(set(steps)), name


@NEEDS_MLFLOW
def test_a_judgement_is_a_run_of_means_above_its_cells_with_the_report(store, cell, tmp_path):
    hook, metrics = Tracked(), []
    for seed in (0, 1):
        made = cell("ce", seed)
        metrics.append(evaluate(hook, made, train(hook, made.predictions.attrs["facts"]), tmp_path))
    summary = summarise(Reported(why="a test"), *metrics)
    verdict = {"summaries": [summary], "baseline": None, "settings": {}, "passes": True}
    files = {"report.html": b"<html>", "classes.png": b"png"}
    for _ in range(2):
        hook = Tracked()
        save(hook, "digits_glt", "judge", {}, {"digits_glt.verdict": verdict})
        save(hook, "digits_glt", "report", {"digits_glt.verdict": verdict}, {"digits_glt.report": files})
    runs = store()
    parent = runs.pop("digits_glt")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id} and len(runs) == 2
    mean = summary["metrics"]["glt.accuracy.few"]["mean"]
    assert parent.data.metrics["ce/glt/accuracy/few/mean"] == pytest.approx(mean)
    assert parent.data.tags["ltpipe.passes"] == "True"
    client = client_of(os.environ["MLFLOW_TRACKING_URI"])
    shown = {file.path for file in client.list_artifacts(parent.info.run_id, "report")}
    assert shown == {"report/report.html", "report/classes.png"}


def test_names_are_legal_and_readable():
    assert tracking.legal("clt.accuracy.all") == "clt/accuracy/all"
    assert tracking.legal("glt.accuracy.group (a+b)") == "glt/accuracy/group _a_b_"


def test_without_the_variable_nothing_is_kept_and_mlflow_is_not_imported(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    hook = Tracked()
    hook.before_pipeline_run()
    hook.after_node_run(SimpleNamespace(name="digits_glt.ce.s0.train"), None, {}, {"a": 1})
    assert not hook.nodes
    code = "import sys, ltpipe.settings\nassert not [name for name in sys.modules if name.startswith('mlflow')]"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_without_the_package_one_warning_says_what_installs_it(monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker")
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    hook = Tracked()
    hook.before_pipeline_run()
    for seed in (0, 1):
        save(hook, f"digits_glt.ce.s{seed}", "train", {}, {"digits_glt.ce.s0.log": None})
    assert [record.message for record in caplog.records if "uv sync --extra mlflow" in record.message]
    assert len(caplog.records) == 1 and not hook.nodes


@NEEDS_MLFLOW
def test_a_tracker_that_does_not_answer_is_said_once_without_its_password(store, cell, monkeypatch, caplog):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # nobody listens there after this
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
    hook = Tracked()
    for seed in (0, 1):
        train(hook, cell("ce", seed).predictions.attrs["facts"])
    [record] = [record for record in caplog.records if record.name == "ltpipe.tracking"]
    assert record.levelname == "ERROR" and f"http://127.0.0.1:{port} failed" in record.message
    assert "secret" not in record.message and not hook.nodes


@NEEDS_MLFLOW
def test_an_address_that_is_none_ends_no_run(store, cell, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://[::1")
    train(Tracked(), cell("ce", 0).predictions.attrs["facts"])
    assert "MLflow at an address that is none failed" in caplog.text


@NEEDS_MLFLOW
@pytest.mark.slow
def test_a_whole_run_is_tracked_and_ends_as_it_would_without(tmp_path, monkeypatch):
    project = copy_project(tmp_path / "project")
    only_two_cells(project / "conf/base/parameters/digits_glt.yml")
    address = (tmp_path / "tracker").as_uri()
    for name, value in {**ON, "MLFLOW_TRACKING_URI": address}.items():
        monkeypatch.setenv(name, value)
    first = call(project, "kedro", "run", "--pipeline=digits_glt", "--runner=ParallelRunner")
    assert first.returncode == 6, first.stdout + first.stderr  # nothing is accepted yet
    before = runs_of(address)
    cells = {"digits_glt.ce.s0", "digits_glt.ce.s1"}
    assert set(before) == cells | {"digits_glt"}
    assert all("glt/accuracy/few" in before[cell].data.metrics for cell in cells)
    assert {before[cell].data.tags["mlflow.parentRunId"] for cell in cells} == {before["digits_glt"].info.run_id}
    again = call(project, "kedro", "run", "--pipeline=digits_glt")
    assert again.returncode == 6 and "kept" in again.stdout + again.stderr
    after = runs_of(address)
    assert {name: run.info.run_id for name, run in after.items()} == {n: r.info.run_id for n, r in before.items()}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    lost = call(project, "kedro", "run", "--pipeline=digits_glt", "--tags=report,gate")
    assert lost.returncode == 6 and (lost.stdout + lost.stderr).count("nothing more of this command is tracked") == 1


def only_two_cells(path):
    """Leave one run and two seeds in a benchmark's file."""
    whole = yaml.safe_load(path.read_text())
    block = whole["digits_glt"]
    block |= {"runs": {"ce": block["runs"]["ce"]}, "seeds": {"s0": 0, "s1": 1}, "claims": []}
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
