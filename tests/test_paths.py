"""Names of runs, seeds and benchmarks that put one dataset into the place of another; runners that are refused."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from copied_project import call
from kedro.framework.project import pipelines as registered
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from ltpipe.benchmark import load
from ltpipe.config.spec import Refused
from ltpipe.hooks import DistinctPaths, KnownRunners, cells_of, dataset_paths, shared_paths
from ltpipe.pipeline_registry import register_pipelines

ROOT = Path(__file__).parents[1]
ENTRIES = yaml.safe_load(
    (ROOT / "conf/base/catalog.yml")
    .read_text()
    .replace("${globals:data}", "data")
    .replace("${globals:raw}", "data/01_raw")
)
CATALOG = {name: entry for name, entry in ENTRIES.items() if not name.startswith("_")}  # as Kedro reads it
# every word of a path in the catalog that is written there, and not filled in: 01_raw, report, metrics, json, ...
WORDS = sorted(
    {word for entry in CATALOG.values() for word in re.split(r"[/.]|\{\w+\}", entry["filepath"]) if word}
    | {path.stem for path in (ROOT / "src/ltpipe/data/sources").glob("[a-z]*.py")}
    | {"data", "raw_digits", "raw"}
)


def found(run="ce", seed="s0", benchmark="mine"):
    """Shared paths of a benchmark that has this run and seed besides others."""
    runs = {name: {"seeds": None} for name in dict.fromkeys(["other", run])}
    block = {"source": {"name": "digits"}, "runs": runs, "seeds": dict.fromkeys(["s1", seed])}
    return shared_paths(dataset_paths(CATALOG, cells_of({benchmark: block})))


@pytest.mark.parametrize("word", WORDS)
def test_of_all_words_in_the_catalog_s_paths_only_report_is_no_name_of_a_run(word):
    pairs = found(run=word)
    assert (pairs != []) == (word == "report")
    assert all(inner.startswith("mine.report.") and outer == "mine.report" for inner, outer in pairs)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_in_the_catalog_s_paths_is_a_name_for_a_seed_and_a_benchmark(word):
    assert found(seed=word) == found(benchmark=word) == found(run="x", seed=word, benchmark=word) == []


def test_the_words_are_those_of_the_catalog():
    assert {"report", "scratch", "01_raw", "summary", "verdict", "accepted", "conf", "digits", "json"} <= set(WORDS)


@pytest.mark.parametrize(
    ("paths", "pairs"),
    [
        ({"a": "x/y", "b": "x/y"}, [("b", "a")]),
        ({"a": "x/y", "b": "x/./y/"}, [("b", "a")]),
        ({"a": "x/y/z/file", "b": "x/y"}, [("a", "b")]),
        ({"a": "x/y", "b": "x/yz", "c": "x/y.json"}, []),
        ({"a": "x/y", "b": "x/y-z", "c": "x/y/z", "d": "x/y.z/w"}, [("c", "a")]),
        ({}, []),
    ],
)
def test_paths_are_shared_if_equal_or_if_one_lies_in_the_other(paths, pairs):
    assert shared_paths(paths) == pairs


def test_the_paths_are_those_that_kedro_finds(monkeypatch):
    names = ["digits_glt", "imagenet_glt"]
    monkeypatch.chdir(ROOT)
    bootstrap_project(ROOT)
    monkeypatch.setattr(registered, "_requested_pipelines", names)  # all benchmarks would take 10 s
    pipelines = register_pipelines()
    with KedroSession.create(project_path=ROOT) as session:
        context = session.load_context()
        catalog, parameters = context.catalog, context.config_loader["parameters"]
        patterns = context.config_loader["catalog"]
    for name in names:
        datasets = [catalog.get(each) for each in pipelines[name].datasets() if not each.startswith("params:")]
        theirs = {str(dataset.path) for dataset in datasets if hasattr(dataset, "path")}
        ours = {str(ROOT / path) for path in dataset_paths(patterns, cells_of({name: parameters[name]})).values()}
        optional = ("clustered.parquet", "originals.parquet", "pictures.npy", "picture_sizes.npy")
        assert len(theirs) > 20 and ours - theirs <= {f"{ROOT}/data/05_model_input/{name}/{file}" for file in optional}
        assert theirs <= ours


def test_an_entry_of_a_full_name_takes_the_place_of_a_pattern():
    catalog = CATALOG | {"mine.images": {"filepath": "data/08_reporting/mine/ce/s0/log.csv"}, "other": {"type": "x"}}
    block = {"source": {"name": "digits"}, "runs": {"ce": {"seeds": ["s0"]}}, "seeds": {}}
    assert shared_paths(dataset_paths(catalog, cells_of({"mine": block}))) == [("mine.images", "mine.ce.s0.log")]


def test_the_message_names_what_collides_and_what_to_do():
    block = {"source": {"name": "digits"}, "runs": {"report": {"seeds": ["s0"]}}, "seeds": {}}
    hook = DistinctPaths()
    hook.after_context_created(SimpleNamespace(config_loader={"parameters": {"mine": block}}))
    with pytest.raises(Refused) as refused:
        hook.after_catalog_created(CATALOG)
    text = refused.value.message
    assert text.startswith("mine.report.s0.classes (and 6 more) would lie in data/08_reporting/mine/report, ")
    assert "the place of mine.report" in text and "another name" in text


@pytest.mark.parametrize("name", ["raw_digits", "a.b", "a-b", "Ab", "a b", "__default__", "1a", "a,b"])
def test_a_benchmark_whose_name_the_catalog_would_misread_is_refused(tmp_path, content, name):
    (tmp_path / "parameters").mkdir()
    (tmp_path / f"parameters/{name}.yml").write_text(yaml.safe_dump({name: content["digits_glt"]}))
    with pytest.raises(Refused, match=rf"{name}\.yml: the name of a benchmark is lower-case letters, digits and _"):
        load(tmp_path)


def test_a_run_called_report_is_refused_before_anything_is_written(copied, content, environment):
    content["digits_glt"]["runs"]["report"] = content["digits_glt"]["runs"]["ce"]
    (copied / "conf/base/parameters/digits_glt.yml").write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "kedro", "run", "--pipeline=digits_glt", "--tags=fetch,cluster,split"]
    done = subprocess.run(command, cwd=copied, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "digits_glt.report.s0.classes (and" in done.stderr
    assert "Traceback" not in done.stderr and not (copied / "data").exists()


THREADS = "<kedro.runner.thread_runner.ThreadRunner object at 0x7f43>"


@pytest.mark.parametrize("runner", [THREADS, "ThreadRunner", "mine.MyRunner", "MyThreadRunner", ""])
def test_a_runner_of_threads_or_of_unknown_kind_is_refused_with_the_others(runner):
    with pytest.raises(Refused, match="the same seeds give other weights; runners: SequentialRunner, ParallelRunner"):
        KnownRunners().before_pipeline_run({"runner": runner})


@pytest.mark.parametrize("runner", [THREADS.replace("Thread", "Parallel"), "SequentialRunner", "None", None])
def test_a_runner_with_a_process_for_each_node_is_not_refused(runner):
    KnownRunners().before_pipeline_run({"runner": runner})


def test_the_thread_runner_is_refused_in_one_line_before_anything_is_written(copied, environment):
    command = [sys.executable, "-m", "kedro", "run", "--pipeline=digits_glt", "--runner=ThreadRunner", "--tags=fetch"]
    done = subprocess.run(command, cwd=copied, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert [line[:29] for line in done.stderr.splitlines() if "Runner" in line] == ["Error: --runner=ThreadRunner:"]
    assert "Traceback" not in done.stderr and not (copied / "data").exists()


@pytest.mark.slow
def test_parallel_processes_train_the_same_bytes(tmp_path):
    """Two runs and two seeds of a shortened benchmark, one after another and in parallel."""
    results = {}
    for runner in ("SequentialRunner", "ParallelRunner"):
        folder = tmp_path / runner
        for name in ("src", "pipelines", "conf"):
            ignored = shutil.ignore_patterns("__pycache__", "local", "accepted")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)
        path = folder / "conf/base/parameters/digits_glt.yml"
        block = yaml.safe_load(path.read_text())
        block["digits_glt"]["schedule"] |= {"epochs": 6, "warmup": 1}
        block["digits_glt"] |= {"seeds": {"s0": 0, "s1": 1}, "claims": []}
        block["digits_glt"]["runs"].pop("logit_adjust_post_hoc")
        block["digits_glt"]["gate"]["against"] = "nothing"
        path.write_text(yaml.safe_dump(block, sort_keys=False))
        done = call(folder, "kedro", "run", "--pipeline=digits_glt", f"--runner={runner}")
        assert done.returncode == 0, done.stderr
        files = ["06_models/digits_glt/*/*/checkpoint.safetensors", "08_reporting/digits_glt/*/*/metrics.json"]
        written = [path for pattern in files for path in (folder / "data").glob(pattern)]
        results[runner] = {path.relative_to(folder): path.read_bytes() for path in written}
    assert len(results["SequentialRunner"]) == 8
    assert results["SequentialRunner"] == results["ParallelRunner"]
