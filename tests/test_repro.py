"""dvc repro on a small copy of the project: passes, does nothing twice, re-runs what was edited, fails at the gate.

The tests are one story in order; each leaves the copy for the next.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from copied_project import BIN, call, copy_project

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The project's files in a git repository of their own: two runs and one that starts from another, three seeds."""
    folder = copy_project(tmp_path_factory.mktemp("repro"))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def repro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(folder, "dvc", "repro", *arguments)


def ran(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"Running stage '([\w-]+)'", done.stdout)


def weights(folder: Path, run: str) -> list[bytes]:
    return [(folder / f"data/06_models/digits_glt/{run}/s{s}/checkpoint.safetensors").read_bytes() for s in (0, 1, 2)]


def test_without_a_baseline_the_gate_fails_and_says_how_to_accept(copy):
    assert call(copy, sys.executable, "-m", "ltpipe.dvc_yaml").returncode == 0
    done = repro(copy)
    assert done.returncode != 0
    assert "has no accepted baseline yet" in done.stderr
    assert 'type: ltpipe accept digits_glt --reason "first baseline"; then run this command again' in done.stderr
    gate = call(copy, "kedro", "run", "--pipeline=digits_glt", "--tags=gate")
    assert gate.returncode == 6, gate.stderr
    assert (copy / "data/08_reporting/digits_glt/report/report.md").exists()


def test_after_accepting_it_passes_and_trains_nothing_again(copy):
    accept = call(copy, sys.executable, "-m", "ltpipe.accept", "digits_glt", "--reason", "a test")
    assert accept.returncode == 0, accept.stderr
    done = repro(copy)
    assert done.returncode == 0, done.stderr
    assert ran(done) == ["report-digits_glt", "gate-digits_glt"]


def test_a_second_repro_does_nothing(copy):
    done = repro(copy)
    assert done.returncode == 0 and ran(done) == []
    assert "up to date" in done.stdout


def test_a_cell_alone_in_a_process_gives_the_bytes_of_its_run_s_one_process(copy):
    """s1 was trained and exported after s0."""
    cell = copy / "data/06_models/digits_glt/ce/s1"
    files = [cell / "checkpoint.safetensors", cell / "model.onnx"]
    before = [file.read_bytes() for file in files]
    done = call(copy, "kedro", "run", "--pipeline=digits_glt", "--tags=train,export", "--namespaces=digits_glt.ce.s1")
    assert done.returncode == 0, done.stderr
    assert [file.read_bytes() for file in files] == before


def test_metrics_and_stages_can_be_shown(copy):
    shown = call(copy, "dvc", "metrics", "show").stdout
    means = json.loads((copy / "data/08_reporting/digits_glt/means.json").read_text())
    assert len(means["glt"]) > 1 and all(f"glt.{run}" in shown for run in means["glt"])
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 120
    assert "train-digits_glt-ce" in call(copy, "dvc", "dag").stdout


def test_editing_a_method_concerns_its_own_stages_only(copy):
    path = copy / "src/ltpipe/methods/logit_adjust.py"
    before = path.read_text()
    path.write_text(before + "\n# a remark\n")
    stages = ran(repro(copy, "--dry"))
    assert stages and not [s for s in stages if s.endswith("-ce") or s.startswith(("fetch", "split"))]
    assert {s for s in stages if s.startswith("train")} == {
        f"train-digits_glt-{run}" for run in ("logit_adjust", "logit_adjust_post_hoc")
    }
    path.write_text(before)


def test_changing_why_there_is_no_reported_value_concerns_the_judge_only(copy):
    path = copy / "conf/base/parameters/digits_glt.yml"
    before = path.read_text()
    changed = before.replace('reported: {why: "', 'reported: {why: "still, ', 1)
    assert changed != before
    path.write_text(changed)
    done = repro(copy)
    assert done.returncode == 0, done.stderr
    assert ran(done) == ["parameters-digits_glt", "report-digits_glt", "gate-digits_glt"]
    path.write_text(before)
    assert repro(copy).returncode == 0


def test_a_changed_default_and_an_edited_benchmark_that_nobody_refers_to_run_the_parameters_alone(copy):
    """The stage writes the whole of the parameters; where it is the same, nothing else runs."""
    path = copy / "conf/base/parameters/cifar10_lt.yml"
    path.write_text(path.read_text() + "# a remark\n")
    done = repro(copy)
    assert done.returncode == 0 and ran(done) == ["parameters-digits_glt"]


def test_a_changed_default_of_a_block_that_the_file_leaves_out_is_seen(copy):
    code, entry = copy / "src/ltpipe/benchmark.py", copy / "conf/base/parameters/digits_glt.yml"
    before = entry.read_text(), code.read_text()
    entry.write_text(before[0].replace("  seeds: {s0: 0, s1: 1, s2: 2}\n", ""))
    code.write_text(before[1].replace('default={"s0": 0, "s1": 1, "s2": 2}', 'default={"s0": 0, "s1": 7, "s2": 2}'))
    assert all(old != new for old, new in zip(before, (entry.read_text(), code.read_text()), strict=True))
    done = repro(copy, "parameters-digits_glt")
    assert done.returncode == 0, done.stderr
    dry = ran(repro(copy, "--dry"))
    assert "train-digits_glt-ce" in dry and "split-digits_glt" not in dry
    entry.write_text(before[0])
    code.write_text(before[1])
    assert repro(copy).returncode == 0


def test_a_worse_model_fails_at_the_gate_with_the_report_written(copy):
    path = copy / "src/ltpipe/methods/ce.py"
    before = path.read_text()
    worse = "\n    def predict(self, out):  # type: ignore[no-untyped-def]\n        return out.logits.roll(1, dims=1)\n"
    path.write_text(before.rstrip() + "\n" + worse)
    report = copy / "data/08_reporting/digits_glt/report/report.md"
    done = repro(copy)
    assert done.returncode != 0
    assert re.search(r"ce glt\.accuracy\.all: [\d.]+ \(n 3\) is [\d.]+ below the accepted [\d.]+, margin", done.stderr)
    assert "the gate FAILS" in report.read_text() and "regressed" in report.read_text()
    assert repro(copy).returncode != 0, "a failed gate fails again"
    path.write_text(before)
    done = repro(copy)
    assert done.returncode == 0, done.stderr


def test_an_experiment_is_kept_though_its_gate_would_fail(copy):
    """Up to the stage `report`: DVC drops an experiment of which a stage fails."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "add", "-A"], cwd=copy, check=True)
    subprocess.run([*git, "commit", "-qm", "before"], cwd=copy, check=True)
    change = "conf/base/parameters/digits_glt.yml:digits_glt.schedule.epochs=1"
    done = call(copy, "dvc", "exp", "run", "--name", "short", "-S", change, "report-digits_glt")
    assert done.returncode == 0, done.stderr
    assert "short" in call(copy, "dvc", "exp", "list").stdout
    assert "the gate FAILS" in (copy / "data/08_reporting/digits_glt/report/report.md").read_text()
    subprocess.run([*git, "restore", "."], cwd=copy, check=True)
    assert call(copy, "dvc", "checkout").returncode == 0
    done = repro(copy)
    assert done.returncode == 0 and ran(done) == [], "going back runs nothing"


def test_weights_after_an_edited_loss_equal_a_clean_run_s(copy):
    path = copy / "src/ltpipe/methods/logit_adjust.py"
    old, before = weights(copy, "logit_adjust"), path.read_text()
    path.write_text(before.replace("self.own.tau * self.own.log_prior, margin", "0.5 * self.own.log_prior, margin"))
    assert path.read_text() != before
    stage = "train-digits_glt-logit_adjust"
    assert repro(copy, stage).returncode == 0
    edited = weights(copy, "logit_adjust")
    shutil.rmtree(copy / "data/06_models/digits_glt/logit_adjust")
    assert repro(copy, "--force", "--single-item", stage).returncode == 0
    assert weights(copy, "logit_adjust") == edited
    assert all(a != b for a, b in zip(old, edited, strict=True))
    path.write_text(before)


def test_a_refused_manifest_leaves_none_and_keeps_its_report(copy):
    path = copy / "conf/base/parameters/digits_glt.yml"
    before = path.read_text()
    path.write_text(before.replace("train_glt: [100, 77,", "train_glt: [100, 78,"))
    done = call(copy, "kedro", "run", "--pipeline=digits_glt", "--tags=fetch,cluster,split")
    assert done.returncode == 2
    assert "expect_class_counts_to_equal: 1 violation, e.g. train_glt class 1: 77 images, not 78" in done.stderr
    assert not (copy / "data/05_model_input/digits_glt/manifest.parquet").exists()
    assert '"success": false' in (copy / "data/08_reporting/digits_glt/validation.json").read_text()
    path.write_text(before)


def test_a_model_that_answers_otherwise_than_torch_is_not_written(copy):
    path = copy / "conf/base/parameters/digits_glt.yml"
    assert repro(copy).returncode == 0
    model = copy / "data/06_models/digits_glt/ce/s0/model.onnx"
    before, old = path.read_text(), model.read_bytes()
    path.write_text(before.replace("absolute: 1.0e-4, relative: 1.0e-3", "absolute: 0.0, relative: 0.0"))
    done = call(copy, "kedro", "run", "--pipeline=digits_glt", "--tags=export", "--namespaces=digits_glt.ce.s0")
    assert done.returncode == 5 and "disagree, no model is written" in done.stderr
    assert model.read_bytes() == old
    done = call(copy, "kedro", "run", "--pipeline=digits_glt", "--tags=evaluate", "--namespaces=digits_glt.ce.s0")
    assert done.returncode == 2 and "the model of digits_glt.ce.s0 is of another state" in done.stderr
    path.write_text(before)


METHOD = '''"""Doubled cross-entropy (nobody, 2026): twice the loss, to show what a new method takes."""

from ltpipe.config.spec import Spec
from ltpipe.interface import method


class Config(Spec):
    """No options."""


class Method(method.Method):
    def loss(self, out, batch):
        return {"loss": 2 * super().loss(out, batch)["loss"]}
'''


def test_a_new_method_is_one_file_and_one_entry(copy):
    file, entry = copy / "src/ltpipe/methods/doubled.py", copy / "conf/base/parameters/digits_glt.yml"
    before = entry.read_text()
    file.write_text(METHOD)
    row = "  runs:\n    doubled:\n      train: {method: doubled, split: train_glt}\n      reported: {why: a test}\n"
    entry.write_text(before.replace("  runs:\n", row, 1))
    done = call(copy, "kedro", "run", "--pipeline=digits_glt", "--env=smoke")
    assert done.returncode == 0, done.stderr
    looks = copy / "data/look/smoke"
    assert "| doubled | glt.accuracy.all |" in (looks / "08_reporting/digits_glt/report/report.md").read_text()
    assert (looks / "06_models/digits_glt/doubled/s0/model.onnx").exists()
    entry.write_text(before)
    file.unlink()


def test_the_wheel_runs_in_another_folder(tmp_path):
    subprocess.run(["uv", "build", "--wheel", "-q", "-o", tmp_path / "dist", ROOT], check=True)
    wheel = next((tmp_path / "dist").glob("*.whl"))
    names = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True).stdout
    assert "pipelines/train.py" in names and "ltpipe/training/loop.py" in names
    assert "tests/" not in names and "conf/" not in names
    site, folder = tmp_path / "site", tmp_path / "elsewhere"
    subprocess.run(["uv", "pip", "install", "-q", "--no-deps", "--target", site, wheel], check=True)
    shutil.copytree(ROOT / "conf", folder / "conf")
    lines = (ROOT / "pyproject.toml").read_text().partition("[tool.kedro]")[2].split("\n[")[0]
    (folder / "pyproject.toml").write_text("[tool.kedro]" + lines.replace('source_dir = "src"', 'source_dir = "."'))
    env = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [BIN / "kedro", "run", "--pipeline=digits_glt", "--env=smoke"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    where = "import ltpipe, pipelines; print(ltpipe.__file__, pipelines.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=folder, capture_output=True, text=True, env=env).stdout
    assert found.count(str(site)) == 2
    assert (folder / "data/look/smoke/08_reporting/digits_glt/report/report.md").exists()
