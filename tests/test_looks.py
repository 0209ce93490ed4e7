"""Looks (--params, --env) and refused commands touch no result; wrong names are refused in one line."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from copied_project import call

from ltpipe.storage.identity import digest_bytes

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow

PIPELINE = ("kedro", "run", "--pipeline=digits_glt")
CELL = "--namespaces=digits_glt.ce.s0"
COST = "/cost.json"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The project's configuration, with results of two short epochs of ce."""
    folder = tmp_path_factory.mktemp("looks")
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local", "accepted"))
    shutil.copytree(ROOT / "pipelines", folder / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    set_epochs(folder, 2)
    for options in (("--tags=fetch,cluster,split",), (CELL,)):
        done = call(folder, *PIPELINE, *options)
        assert done.returncode == 0, done.stderr
    return folder


def set_epochs(folder: Path, epochs: int) -> None:
    path = folder / "conf/base/parameters/digits_glt.yml"
    content = (ROOT / "conf/base/parameters/digits_glt.yml").read_text()
    assert content.count("epochs: 60") == 1
    path.write_text(content.replace("epochs: 60", f"epochs: {epochs}"))


def contents(folder: Path) -> dict[str, str]:
    """Path -> digest of every file below the folder of results, without the looks, and without times."""
    files = (path for path in (folder / "data").rglob("*") if path.is_file())
    named = {path.relative_to(folder / "data").as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}
    return {name: digest for name, digest in named.items() if not name.startswith("look/") and not name.endswith(COST)}


def test_changed_parameters_leave_the_results_and_write_below_the_look(project):
    before = contents(project)
    done = call(project, *PIPELINE, CELL, "--params=digits_glt.schedule.epochs=3")
    assert done.returncode == 0, done.stderr
    assert contents(project) == before
    assert "it writes below data/look, and the results stay as they are" in done.stderr
    log = (project / "data/look/08_reporting/digits_glt/ce/s0/log.csv").read_text().splitlines()
    assert len(log) == 1 + 3
    assert "the data of digits_glt are read from data" in done.stderr


def test_a_second_look_reads_what_the_first_one_made(project):
    done = call(project, *PIPELINE, CELL, "--tags=export,evaluate", "--params=digits_glt.schedule.epochs=3")
    assert done.returncode == 0, done.stderr
    assert "checkpoint is read from" not in done.stderr


def test_data_that_other_parameters_drew_are_not_taken(project):
    """Neither those of the results for another split, nor those of a look for other parameters, nor a part of them."""
    other = "--params=digits_glt.split.options.seed=7"
    done = call(project, *PIPELINE, CELL, "--tags=train", other)
    assert done.returncode == 2 and "no data of digits_glt are drawn by these parameters" in done.stderr
    done = call(project, *PIPELINE, "--tags=fetch,cluster,split", other)
    assert done.returncode == 0, done.stderr
    done = call(project, *PIPELINE, CELL, "--tags=train", "--params=digits_glt.schedule.epochs=1")
    assert "the data of digits_glt are read from data\n" in done.stderr
    (project / "data/look/05_model_input/digits_glt/data_identity.json").unlink()
    done = call(project, *PIPELINE, CELL, "--tags=train", other)
    assert done.returncode == 2, "the look's data are not whole"


def test_a_look_draws_its_data_as_a_whole(project):
    done = call(project, *PIPELINE, "--tags=split", "--params=digits_glt.split.options.seed=8")
    assert done.returncode == 2 and "digits_glt.index: a run with changed parameters draws its data" in done.stderr


def test_another_configuration_is_a_look(project, tmp_path):
    before = contents(project)
    shutil.copytree(project / "conf", tmp_path / "conf")
    done = call(project, *PIPELINE, "--tags=parameters", f"--conf-source={tmp_path / 'conf'}")
    assert done.returncode == 0, done.stderr
    assert contents(project) == before


def test_a_finished_cell_is_kept_until_it_is_asked_for_anew(project):
    before = contents(project)
    done = call(project, *PIPELINE, CELL, "--tags=train")
    assert done.returncode == 0 and "digits_glt.ce.s0: kept" in done.stderr
    assert contents(project) == before
    done = call(project, *PIPELINE, CELL, "--tags=train", "--fresh")
    assert done.returncode == 0 and "kept" not in done.stderr and "epoch 2" in done.stderr
    assert contents(project) == before, "the same bits"


def test_a_cell_leaves_its_cost_which_is_kept_with_it_and_measured_anew_with_it(project):
    path = project / f"data/08_reporting/digits_glt/ce/s0{COST}"
    first = path.read_bytes()
    cost = json.loads(first)
    checkpoint = (project / "data/06_models/digits_glt/ce/s0/checkpoint.safetensors").read_bytes()
    assert cost["checkpoint"] == digest_bytes(checkpoint) and cost["images"] > 0
    assert 0 < cost["stepping"] <= cost["seconds"] and cost["precision"] == "fp32" and cost["threads"] >= 1
    assert call(project, *PIPELINE, CELL, "--tags=train").returncode == 0
    assert path.read_bytes() == first
    path.unlink()  # as an older version leaves it
    assert call(project, *PIPELINE, CELL, "--tags=train").returncode == 0
    assert json.loads(path.read_bytes()) == {}
    assert call(project, *PIPELINE, CELL, "--tags=train", "--fresh").returncode == 0
    assert json.loads(path.read_bytes())["checkpoint"] == cost["checkpoint"]


def test_an_environment_is_a_look_of_its_own_and_shares_downloads(project):
    before = contents(project)
    done = call(project, *PIPELINE, CELL, "--env=smoke", "--tags=train")
    assert done.returncode == 0, done.stderr
    assert contents(project) == before
    assert (project / "data/look/smoke/06_models/digits_glt/ce/s0/checkpoint.safetensors").exists()
    assert not (project / "data/look/smoke/01_raw").exists()


def test_a_refused_measurement_keeps_the_exported_model(project):
    """Training is needed first, and until then the old model is the best that there is."""
    before = contents(project)
    set_epochs(project, 3)
    done = call(project, *PIPELINE, CELL, "--tags=export,evaluate")
    set_epochs(project, 2)
    assert done.returncode == 2 and "Make it again" in done.stderr, done.stderr
    assert contents(project) == before
    assert "06_models/digits_glt/ce/s0/model.onnx" in before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--tags=training", "no stage is called training; stages: parameters, fetch, cluster, split, train, export, "),
        (
            "--tags=fetch,splits",
            "no stage is called splits; stages: parameters, fetch, cluster, split, train, export, ",
        ),
        ("--tags=cluster", "no node has the tag cluster; stages here: parameters, fetch, split, train, export, "),
        ("--namespaces=digits_glt.cd", "no node is in the namespace digits_glt.cd; namespaces: digits_glt, "),
        ("--nodes=digits_glt.ce.train", "Pipeline does not contain nodes named ['digits_glt.ce.train']"),
        ("--tags=fetch " + CELL, "nothing to run: "),
    ],
)
def test_a_filter_that_names_nothing_is_refused_in_one_line(project, options, message):
    done = call(project, *PIPELINE, *options.split())
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_copied_file_whose_key_was_not_renamed_is_refused_in_one_line(project):
    copied = project / "conf/base/parameters/mine.yml"
    shutil.copy(project / "conf/base/parameters/digits_glt.yml", copied)
    done = call(project, "kedro", "run", "--pipeline=mine")
    copied.unlink()
    assert done.returncode == 2 and "mine.yml: must hold one top-level key, mine" in done.stderr
    assert "it holds digits_glt" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_refusal_comes_without_advice_to_repeat_the_command(project):
    done = call(project, *PIPELINE, "--tags=report")
    assert done.returncode == 2 and "No nodes ran" not in done.stderr and "Repeat" not in done.stderr
    set_epochs(project, 3)
    done = call(project, *PIPELINE, CELL, "--tags=export,evaluate")
    set_epochs(project, 2)
    assert done.returncode == 2 and "nodes that have not run" not in done.stderr and "No nodes ran" not in done.stderr
