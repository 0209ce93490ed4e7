"""Ways to pass the gate by accident, by commands alone: each must end with an error that names what is wrong.

Every test gets a copy of one small project whose gate passes, spoils something, and types a command.
"""

import base64
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
import pytest
from copied_project import call, copy_project, start

from ltpipe.evaluation.baseline import seal

pytestmark = pytest.mark.slow

NAME = "digits_glt"
RUNS, SEEDS = ("ce", "logit_adjust", "logit_adjust_post_hoc"), ("s0", "s1", "s2")
SPLIT_SEED = "groups: {by: rank, many: 4, medium: 4}\n      seed: "
LOGIT_ADJUST = "    logit_adjust: {train: {method: logit_adjust, split: train_glt}}\n"
Done = subprocess.CompletedProcess[str]


class Project:
    """A copy of the project and the commands that are typed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.yaml = folder / f"conf/base/parameters/{NAME}.yml"
        self.accepted = folder / f"conf/accepted/{NAME}.json"
        self.report = folder / f"data/08_reporting/{NAME}/report/report.md"
        self.verdict = folder / f"data/08_reporting/{NAME}/verdict.json"
        self.manifest = folder / f"data/05_model_input/{NAME}/manifest.parquet"

    def run(self, *arguments: str) -> Done:
        return call(self.folder, "kedro", "run", f"--pipeline={NAME}", *arguments)

    def train(self, run: str, *arguments: str) -> Done:
        """Train, export and evaluate every seed of a run."""
        return self.run("--namespaces=" + ",".join(f"{NAME}.{run}.{seed}" for seed in SEEDS), *arguments)

    def judge(self) -> Done:
        return self.run("--tags=report,gate")

    def measure_and_judge(self) -> Done:
        return self.run("--tags=evaluate,report,gate")

    def accept(self, *arguments: str) -> Done:
        return call(self.folder, "ltpipe", "accept", NAME, "--reason", "because I say so", *arguments)

    def edit(self, old: str, new: str) -> None:
        """Replace a text of the benchmark's file, which must be there once."""
        content = self.yaml.read_text()
        assert content.count(old) == 1, old
        self.yaml.write_text(content.replace(old, new))

    def file(self, layer: str, cell: str, name: str) -> Path:
        """Return a file of a cell, e.g. ("06_models", "ce.s0", "model.onnx")."""
        return self.folder / f"data/{layer}/{NAME}/{cell.replace('.', '/')}" / name

    def says_passes(self) -> bool:
        said = [self.verdict.exists() and json.loads(self.verdict.read_text())["passes"]]
        return any([*said, self.report.exists() and "the gate passes" in self.report.read_text()])


@pytest.fixture(scope="module")
def passing(tmp_path_factory) -> Project:
    """A project with three runs and three seeds, trained, accepted and judged."""
    project = Project(copy_project(tmp_path_factory.mktemp("passing")))
    assert project.run().returncode == 6
    assert (done := project.accept()).returncode == 0, done.stderr
    assert (done := project.judge()).returncode == 0, done.stderr
    assert project.says_passes()
    return project


@pytest.fixture
def project(passing, tmp_path) -> Iterator[Project]:
    """A copy of the passing project, for one test to spoil."""
    folder = shutil.copytree(passing.folder, tmp_path / "project")
    yield Project(folder)
    shutil.rmtree(folder)


def refused(project: Project, done: Done, code: int, *culprits: str) -> None:
    """Check that a command failed with this exit code, named the culprits, and left nothing that says `passes`."""
    assert done.returncode == code, done.stdout + done.stderr
    error = done.stderr[done.stderr.rindex("Error: ") :]
    assert all(culprit in error for culprit in culprits), error
    assert not project.says_passes()


# 1. runs that are not there any more


def test_a_removed_run_fails_until_it_is_retired_and_the_report_says_why(project):
    project.edit(LOGIT_ADJUST, "")
    project.edit(
        '    - {better: logit_adjust, than: ce, metric: glt.accuracy.few, source: "Menon et al., ICLR 2021"}\n', ""
    )
    refused(project, project.judge(), 3, "logit_adjust was accepted and is not run any more", "--retire logit_adjust")
    (project.folder / "conf/base/parameters/digits_glt_all.yml").unlink()  # it takes this run from digits_glt
    accept_refuses(project, "accepted runs that are not run any more: logit_adjust")
    assert (done := project.accept("--retire", "logit_adjust")).returncode == 0, done.stderr
    assert (done := project.judge()).returncode == 0, done.stderr
    assert "logit_adjust was retired: because I say so" in project.report.read_text()


def test_a_renamed_run_fails_until_the_old_name_is_retired(project):
    project.edit(LOGIT_ADJUST, LOGIT_ADJUST.replace("logit_adjust:", "large_margin:"))
    project.edit("better: logit_adjust,", "better: large_margin,")
    (project.folder / "conf/base/parameters/digits_glt_all.yml").unlink()
    refused(project, project.judge(), 2, f"{NAME}.large_margin.s0", "is missing")
    for layer in ("06_models", "07_model_output", "08_reporting"):
        folder = project.folder / f"data/{layer}/{NAME}"
        (folder / "logit_adjust").rename(folder / "large_margin")
    refused(project, project.judge(), 2, f"{NAME}.logit_adjust.s0", f"{NAME}.large_margin.s0")
    assert (done := project.train("large_margin")).returncode == 0, done.stderr
    refused(
        project, project.judge(), 3, "logit_adjust was accepted and is not", "large_margin glt.accuracy.all: incompar"
    )
    # the new name is no reason to see a fall, though messages of falls have the word in them too
    assert (done := project.accept("--retire", "logit_adjust")).returncode == 0, done.stderr


# 2. accept


def accept_refuses(project: Project, *culprits: str) -> None:
    before = project.accepted.read_bytes()
    done = project.accept()
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(culprit in done.stderr for culprit in culprits), done.stderr
    assert project.accepted.read_bytes() == before


def test_a_cell_of_other_parameters_is_not_accepted(project):
    """--params would be a look, which leaves the results as they are; an edit that is taken back does not."""
    cell = f"{NAME}.ce.s0"
    project.edit("epochs: 30", "epochs: 3")
    assert project.run(f"--namespaces={cell}").returncode == 0
    project.edit("epochs: 3\n", "epochs: 30\n")
    accept_refuses(project, cell, "recipe is")
    refused(project, project.judge(), 2, cell, "recipe is")


def test_numbers_of_other_code_are_not_accepted(project):
    path = project.folder / "src/ltpipe/methods/logit_adjust.py"
    path.write_text(path.read_text() + "\n# a remark\n")
    accept_refuses(project, f"{NAME}.logit_adjust.s0", "code is")
    refused(project, project.judge(), 2, f"{NAME}.logit_adjust.s0", "code is")


def test_numbers_of_another_split_are_not_accepted(project):
    project.edit(SPLIT_SEED + "0", SPLIT_SEED + "1")
    accept_refuses(project, "the manifest of digits_glt", "parameters is")


def test_a_missing_seed_is_not_accepted(project):
    project.file("08_reporting", "ce.s1", "metrics.json").unlink()
    accept_refuses(project, "ce/s1/metrics.json")


def test_worse_numbers_are_accepted_only_when_that_is_said(project):
    project.edit("epochs: 30", "epochs: 15")
    project.edit(", metrics: [clt.accuracy.all]", "")  # cannot be told from guessing after so few epochs
    refused(
        project, project.run(), 3, "ce glt.accuracy.all", "below the accepted", "changed since accepted: gate.metrics"
    )
    accept_refuses(project, "worse than the accepted", "ce glt.accuracy.all", "--worse")
    done = project.accept("--worse")
    assert done.returncode == 0, done.stderr
    assert "gate.metrics: ['clt.accuracy.all'] -> []" in done.stdout


# 3. an accepted file that somebody edited


def lower(values: dict[str, float]) -> None:
    values["glt.accuracy.all"] -= 10


def change_bits(content: Any) -> None:
    correct = content["runs"]["ce"]["seeds"]["s0"]["correct"]
    bits = bytearray(base64.b64decode(correct["test_gbl"]))
    bits[0] ^= 255
    correct["test_gbl"] = base64.b64encode(bits).decode()


def shorten_bits(content: Any) -> None:
    correct = content["runs"]["ce"]["seeds"]["s0"]["correct"]
    correct["test_gbl"] = correct["test_gbl"][:-8]


def lower_mean(content: Any) -> None:
    lower(content["runs"]["ce"]["mean"])


def lower_mean_and_seeds(content: Any) -> None:
    for values in (content["runs"]["ce"]["mean"], *(s["metrics"] for s in content["runs"]["ce"]["seeds"].values())):
        lower(values)


def rename_benchmark(content: Any) -> None:
    content["benchmark"] = "digits_glt_all"


def drop_seed(content: Any) -> None:
    del content["runs"]["ce"]["seeds"]["s2"]


def drop_run(content: Any) -> None:
    del content["runs"]["logit_adjust"]


TAMPERED = [
    (change_bits, "the bits of test_gbl do not give glt.accuracy.all"),
    (shorten_bits, "ce.s0: bits of test_gbl"),
    (lower_mean, "mean of ce does not follow from its seeds"),
    (lower_mean_and_seeds, "the bits of test_gbl do not give glt.accuracy.all"),
    (rename_benchmark, "it is of digits_glt_all"),
    (drop_seed, "ce has 2 seeds, not n 3"),
]


@pytest.mark.parametrize(("tamper", "message"), TAMPERED)
def test_an_edited_baseline_is_refused_even_with_a_digest_that_fits(project, tamper, message):
    content = json.loads(project.accepted.read_text())
    tamper(content)
    project.accepted.write_text(json.dumps(seal(content)))
    refused(project, project.judge(), 2, f"conf/accepted/{NAME}.json", message)


@pytest.mark.parametrize("tamper", [change_bits, drop_run])
def test_an_edited_baseline_with_its_old_digest_is_refused(project, tamper):
    content = json.loads(project.accepted.read_text())
    tamper(content)
    project.accepted.write_text(json.dumps(content))
    refused(project, project.judge(), 2, f"conf/accepted/{NAME}.json", "its digest is not that of its content")


# 4. files in the wrong place, or of another time


@pytest.mark.parametrize("other", ["ce.s1", "logit_adjust.s0"])
def test_the_model_of_another_cell_is_refused(project, other):
    shutil.copy(project.file("06_models", other, "model.onnx"), project.file("06_models", "ce.s0", "model.onnx"))
    refused(project, project.measure_and_judge(), 2, f"the model of {NAME}.ce.s0", f"cell is {NAME}.{other}")


def test_a_model_with_its_classes_in_another_order_is_refused(project):
    path = project.file("06_models", "ce.s0", "model.onnx")
    model = onnx.load(path)
    entry = next(entry for entry in model.metadata_props if entry.key == "ltpipe.classes")
    entry.value = json.dumps(json.loads(entry.value)[::-1])
    onnx.save(model, path)
    refused(project, project.measure_and_judge(), 2, f"the model of {NAME}.ce.s0", "classes is")


def test_a_quantised_copy_in_the_place_of_the_model_is_refused(project):
    """It has every fact of the model it came from."""
    path = project.file("06_models", "ce.s0", "model.onnx")
    done = call(project.folder, "ltpipe", "quantise", str(path), "--precision", "fp16", "--out", "copy.onnx")
    assert done.returncode == 0, done.stderr
    shutil.copy(project.folder / "copy.onnx", path)
    refused(project, project.measure_and_judge(), 2, f"the model of {NAME}.ce.s0 is the fp16 copy")


def test_predictions_without_the_wrong_ones_are_refused(project):
    path = project.file("07_model_output", "ce.s0", "predictions.parquet")
    table = pd.read_parquet(path)
    kept = table[table["label"] == table["predicted"]].reset_index(drop=True)
    kept.attrs = table.attrs
    kept.to_parquet(path, index=False)
    done = project.run(f"--nodes={NAME}.ce.s0.measure")
    refused(project, done, 2, f"{NAME}.ce.s0", f"{len(table) - len(kept)} images have none")
    assert project.measure_and_judge().returncode == 0, "predicted again, by the model"


def test_predictions_of_another_cell_are_refused(project):
    name = "predictions.parquet"
    shutil.copy(project.file("07_model_output", "ce.s1", name), project.file("07_model_output", "ce.s0", name))
    node = f"{NAME}.ce.s0.measure"
    refused(project, project.run(f"--from-nodes={node}"), 2, f"{NAME}.state, which", "--tags=evaluate,report,gate")
    refused(project, project.run(f"--nodes={node}"), 2, f"predictions of {NAME}.ce.s0", f"cell is {NAME}.ce.s1")


def test_the_metrics_of_another_cell_are_refused(project):
    name = "metrics.json"
    shutil.copy(project.file("08_reporting", "ce.s1", name), project.file("08_reporting", "ce.s0", name))
    refused(project, project.judge(), 2, "ce.s1")


def test_metrics_that_somebody_improved_are_not_accepted(project):
    """The judge does not see it, as it reads no predictions."""
    path = project.file("08_reporting", "ce.s0", "metrics.json")
    content = json.loads(path.read_text())
    content["protocols"]["glt"]["accuracy"]["all"] += 5
    path.write_text(json.dumps(content))
    accept_refuses(project, "ce.s0: the bits of test_gbl do not give glt.accuracy.all")


def test_the_checkpoint_of_another_cell_is_refused(project):
    name = "checkpoint.safetensors"
    shutil.copy(project.file("06_models", "ce.s1", name), project.file("06_models", "ce.s0", name))
    done = project.run("--tags=export", f"--namespaces={NAME}.ce.s0")
    refused(project, done, 2, f"the checkpoint of {NAME}.ce.s0", f"cell is {NAME}.ce.s1")


def test_a_run_that_started_from_weights_that_are_not_there_any_more_is_refused(project):
    recipe = "{train: {method: ce, split: train_glt"
    project.edit(recipe, recipe + ", schedule: {threads: 2}")  # not its length: claims compare runs of one recipe
    assert (done := project.train("ce")).returncode == 0, done.stderr
    refused(project, project.judge(), 2, f"{NAME}.logit_adjust_post_hoc.s0 started from checkpoint")


# 5 and 6. other data


def test_numbers_and_models_of_an_older_manifest_are_refused(project):
    project.edit(SPLIT_SEED + "0", SPLIT_SEED + "1")
    refused(project, project.judge(), 2, f"the manifest of {NAME} is of another state", "--tags=fetch,cluster,split")
    assert (done := project.run("--tags=fetch,cluster,split")).returncode == 0, done.stderr
    refused(project, project.judge(), 2, f"{NAME}.ce.s0", "data is")
    refused(project, project.measure_and_judge(), 2, f"the model of {NAME}.ce.s0", "data is")


def test_training_rows_that_point_at_test_pixels_are_refused(project):
    manifest = pd.read_parquet(project.manifest)
    train, test = (manifest.index[manifest["role"] == role][:30] for role in ("train", "test"))
    # only a data id that sees the column `row` notices it
    manifest.loc[train, "row"] = manifest.loc[test, "row"].to_numpy()
    manifest.to_parquet(project.manifest, index=False)
    refused(project, project.measure_and_judge(), 2, f"the model of {NAME}.ce.s0", "data is")


def test_an_easier_test_split_under_the_old_name_is_refused(project):
    project.edit("glt: {train: train_glt, test: test_gbl}", "glt: {train: train_glt, test: test_cbl}")
    refused(project, project.judge(), 2, f"{NAME}.ce.s0", "measured is")
    refused(project, project.measure_and_judge(), 2, "the bits of test_cbl do not give glt.accuracy.all")


# 7. runs that failed


def judges_nothing(project: Project) -> None:
    """The old results are there, and are not those of the file."""
    refused(project, project.run("--tags=gate"), 2, f"{NAME}.verdict is missing")
    refused(project, project.judge(), 2, f"{NAME}.ce.s0", "recipe is")


def test_a_look_whose_training_failed_leaves_the_results_and_their_verdict(project):
    before = project.verdict.read_bytes()
    done = project.run(f"--params={NAME}.schedule.lr=1e30")
    assert done.returncode == 4 and f"{NAME}.ce.s0" in done.stderr, done.stderr
    assert project.verdict.read_bytes() == before
    look = project.folder / f"data/look/08_reporting/{NAME}"
    assert not (look / "verdict.json").exists() and not (look / "report").exists()


def test_after_training_failed_with_an_edited_file_nothing_passes(project):
    project.edit("lr: 0.1", "lr: 1.0e+30")
    refused(project, project.run("--tags=train"), 4, f"{NAME}.ce.s0")
    judges_nothing(project)


def test_after_training_was_killed_nothing_passes(project):
    project.edit("epochs: 30", "epochs: 100000")
    command = ("kedro", "run", f"--pipeline={NAME}", "--tags=train")
    with start(project.folder, *command) as training:
        lines = iter(training.stdout.readline, "")
        assert any(f"{NAME}.ce.s0: ce on" in line for line in lines)
        training.send_signal(signal.SIGKILL)
    judges_nothing(project)


# 8. a weaker gate may pass, and says so

GATE = "gate: {primary: glt.accuracy.all, metrics: [clt.accuracy.all], ceiling: 30"
ALL_SEEDS = "seeds: {s0: 0, s1: 1, s2: 2}"
WEAKER = [
    ("primary: glt.accuracy.all, level: 0.5, ceiling: 90, runs: [ce]", "seeds: {s0: 0, s1: 1}"),
    ("primary: glt.accuracy.all, against: nothing", ALL_SEEDS),
]
SAID = [
    (
        "gate.metrics: [], when accepted ['clt.accuracy.all']",
        "gate.level: 0.5, when accepted 0.95",
        "gate.ceiling: 90.0, when accepted 30.0",
        "gate.runs: ['ce'], when accepted None",
        "ce: 2 seeds, when accepted 3",
    ),
    ("gate.against: nothing, when accepted accepted",),
]


@pytest.mark.parametrize(("weaker", "said"), zip(WEAKER, SAID, strict=True))
def test_a_weaker_gate_says_so_in_its_last_line_and_in_the_report(project, weaker, said):
    project.edit(GATE, f"gate: {{{weaker[0]}")
    project.edit(ALL_SEEDS, weaker[1])
    done = project.judge()
    assert done.returncode == 0, done.stderr
    last, report = (done.stdout + done.stderr).strip().splitlines()[-1], project.report.read_text()
    assert all(line in last and f"changed since accepted: {line}" in report for line in said), last


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GATE, GATE + ", runs: []", "gate.runs"),
        (ALL_SEEDS, "seeds: {s0: 0, s1: 1, s2: 1}", "s1, s2 share theirs"),
    ],
)
def test_a_gate_that_can_compare_nothing_is_no_benchmark(project, old, new, message):
    project.edit(old, new)
    done = project.judge()
    assert done.returncode == 2 and message in done.stderr, done.stdout + done.stderr
