"""docs/results.md: what the committed records say, beside what papers report."""

import json
import shutil

import pytest

from ltpipe.benchmark import load
from ltpipe.config.spec import Refused
from ltpipe.evaluation.record import Record, same_recipe, whole_recipe
from ltpipe.pages.results import FOLDER, render_results


@pytest.fixture
def project(root, tmp_path):
    """Return a project with the benchmarks and without records."""
    shutil.copytree(root / "conf/base", tmp_path / "conf/base")
    return tmp_path


def keep(project, accuracy, run="ldam_drw", seed=0, name="cifar10_lt", **changes):
    """Write a record of a run of cifar10_lt with this accuracy; changes: of the record's fields."""
    spec = load(project / "conf/base", [name])[name]
    train = spec.runs.get(run, spec.runs["ce"]).train
    record = Record(
        cell=f"{name}.{run}.s{seed}", seed=seed, code="0c0de", recipe="1", data="d-1", device="A GPU",
        parameters=whole_recipe(train, spec.schedule, spec.model), protocols=spec.evaluate.protocols,
        versions={"torch": "2"}, seconds=4000,
        command=f"ltpipe train F --run {run} --seed s{seed} --out results", finished="2026-01-01",
        metrics={"lt": {"n": 10, "accuracy": {"all": accuracy}}},
    ).model_copy(update=changes)  # fmt: skip
    path = project / FOLDER / name / run / f"s{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.model_dump_json())
    return path


def lines_of(project, run):
    return [line for line in render_results(project).splitlines() if line.startswith(f"| {run} |")]


def test_a_row_compares_the_mean_over_seeds_with_the_reported_number(project):
    keep(project, 76.0)
    keep(project, 77.0, seed=1)
    numbers, origin = lines_of(project, "ldam_drw")
    assert numbers.startswith(
        "| ldam_drw | lt.accuracy.all | 77.03 +- 2 | 76.50 | 0.71 | 2 | -0.53 | within the tolerance |"
    )
    assert "LDAM" in numbers
    assert origin == (
        "| ldam_drw | as the file states | 0c0de | d-1 | A GPU | 67 min | "
        "`ltpipe train F --run ldam_drw --seed s0 --seed s1 --out results` |"
    )


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ([77.0], "one seed, inside the tolerance"),
        ([60.0], "one seed, outside the tolerance"),
        ([60.0, 60.2], "below the tolerance"),
        ([90.0, 90.2], "above the tolerance"),
        ([70.0, 80.0], "inconclusive: more seeds"),
    ],
)
def test_the_verdict_says_what_the_seeds_can_say(project, accuracies, verdict):
    for seed, accuracy in enumerate(accuracies):
        keep(project, accuracy, seed=seed)
    assert f"| {verdict} |" in lines_of(project, "ldam_drw")[0]


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("key", ["parameters", "protocols"])
def test_a_record_of_another_recipe_or_test_is_marked_and_not_judged(project, key):
    path = keep(project, 77.0)
    content = json.loads(path.read_text())
    inner = {"parameters": content["parameters"]["schedule"], "protocols": content["protocols"]["lt"]}[key]
    inner |= {"epochs": 100} if key == "parameters" else {"test": "val"}
    change(path, **{key: content[key]})
    numbers, origin = lines_of(project, "ldam_drw")
    assert "| 77.03 +- 2 | 77.00 | - | 1 | - | of another recipe |" in numbers
    assert "| ANOTHER than the file states |" in origin


@pytest.mark.parametrize("key", ["data", "code", "parameters"])
def test_seeds_that_are_not_alike_have_no_mean(project, key):
    keep(project, 77.0)
    path = keep(project, 76.0, seed=1)
    content = json.loads(path.read_text())
    content["parameters"]["schedule"]["epochs"] = 100
    change(path, **{key: content[key] if key == "parameters" else "other"})
    with pytest.raises(Refused, match=rf"the records of cifar10_lt\.ldam_drw differ in {key}"):
        render_results(project)


def test_a_record_states_the_defaults_of_its_time(project):
    """The run states drw alone; if the default of `margin` changes, the record is of another recipe."""
    path = keep(project, 77.0)
    record = Record.model_validate_json(path.read_text())
    spec = load(project / "conf/base", ["cifar10_lt"])["cifar10_lt"]
    asked = (spec.runs["ldam_drw"].train, spec.schedule, spec.model)
    assert same_recipe(record, *asked)
    assert record.parameters["run"]["options"]["margin"] == 0.5
    record.parameters["run"]["options"]["margin"] = 0.4
    assert not same_recipe(record, *asked)


def test_a_run_without_a_reported_number_is_shown_by_a_metric_that_it_has(project):
    path = keep(project, 50.0, run="ifl_cbl", name="imagenet_glt")
    change(path, metrics={"alt": {"n": 10, "accuracy": {"all": 41.0}}})
    assert lines_of(project, "ifl_cbl")[0].startswith("| ifl_cbl | alt.")


def test_a_record_of_no_run_is_refused(project):
    keep(project, 77.0, run="nope")
    with pytest.raises(Refused, match=r"cifar10_lt\.nope\.s0 is of no run of cifar10_lt; runs: ce, "):
        render_results(project)


def test_a_file_that_is_no_record_is_refused(project):
    path = keep(project, 77.0)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extra": 1}))
    with pytest.raises(Refused, match="unknown key extra"):
        render_results(project)


def test_a_record_counts_once(project):
    path = keep(project, 77.0)
    shutil.copy(path, path.with_name("s1.json"))
    with pytest.raises(Refused, match=r"ldam_drw/s1.json: this is the record of cifar10_lt\.ldam_drw\.s0"):
        render_results(project)
    content = json.loads(path.read_text()) | {"cell": "cifar10_lt.ldam_drw.s1"}
    path.with_name("s1.json").write_text(json.dumps(content))
    with pytest.raises(Refused, match="another record of ldam_drw has the seed 0 too"):
        render_results(project)


def test_records_of_no_benchmark_are_refused(project):
    keep(project, 77.0)
    (project / "conf/base/parameters/nope.yml").write_text("nope:\n  like: cifar10_lt\n  reported: {why: a test}\n")
    keep(project, 77.0, run="ce", name="nope")
    (project / "conf/base/parameters/nope.yml").unlink()
    with pytest.raises(Refused, match="no benchmark nope; benchmarks: "):
        render_results(project)
