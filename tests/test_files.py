"""Every file format loads what it saved, a failed save keeps the old file, and stale results are deleted."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.pipeline import Node, Pipeline

from ltpipe.config.spec import Refused
from ltpipe.hooks import MissingInputs, StaleOutputs
from ltpipe.storage.atomic import write_atomically
from ltpipe.storage.datasets import Array, Csv, File, Folder, Json, OptionalJson, Parquet, Scratch, Text

TABLE = pd.DataFrame({"id": ["a", "b"], "label": [1, 2], "confidence": [0.1, 1 / 3], "right": [True, False]})
CASES = [
    (File, b"\x00\xff bytes"),
    (Text, "Text with an umlaut: ä, and\nlines\n"),
    (Json, {"b": [1, 2.5, None, True], "a": {"x": "ä"}}),
    (OptionalJson, {"a": 1}),
    (Parquet, TABLE),
    (Csv, TABLE),
    (Array, np.arange(24, dtype=np.uint8).reshape(2, 3, 4)),
]


def same(first, second):
    if isinstance(first, pd.DataFrame):
        return first.equals(second) and (first.dtypes == second.dtypes).all()
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    return type(first) is type(second) and first == second


def names(folder):
    """Return all paths below a folder, hidden files included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize(("kind", "value"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_saved_value_is_loaded_and_no_other_file_is_left(kind, value, tmp_path):
    dataset = kind(str(tmp_path / "deep/er/file"))
    assert not dataset.exists()
    dataset.save(value)
    assert dataset.exists()
    assert same(dataset.load(), value)
    assert names(tmp_path) == ["deep", "deep/er", "deep/er/file"]


@pytest.mark.parametrize(("kind", "value"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_the_same_value_gives_the_same_bytes(kind, value, tmp_path):
    for name in ("first", "second"):
        kind(str(tmp_path / name)).save(value)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize(("kind", "value"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_an_old_file_is_replaced_and_not_written_into(kind, value, tmp_path):
    """So a process that has the old file open or mapped keeps it, and a killed save does not damage it."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").hardlink_to(tmp_path / "file")
    kind(str(tmp_path / "file")).save(value)
    assert (tmp_path / "link").read_bytes() == b"old"
    assert same(kind(str(tmp_path / "file")).load(), value)


@pytest.mark.parametrize(
    ("kind", "old", "bad"),
    [
        (Text, "old", 3),
        (Json, {"old": 1}, {"x": float("nan")}),
        (Json, {"old": 1}, {"x": object()}),
        (Parquet, TABLE, pd.DataFrame({"x": [object()]})),
        (Csv, TABLE, None),
        (Array, np.ones(3), np.array([object()])),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_a_value_that_cannot_be_saved_leaves_the_old_file_unchanged(kind, old, bad, tmp_path):
    dataset = kind(str(tmp_path / "file"))
    dataset.save(old)
    with pytest.raises(DatasetError):
        dataset.save(bad)
    assert same(dataset.load(), old)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_old_file_unchanged_and_no_temporary_file(place, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    write_atomically(tmp_path / "file", b"old")
    monkeypatch.setattr(place, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_write_makes_the_folders_it_needs(tmp_path):
    write_atomically(tmp_path / "a/b/file", b"x")
    assert (tmp_path / "a/b/file").read_bytes() == b"x"


def test_a_reader_of_the_old_file_keeps_it_while_a_new_one_is_written(tmp_path):
    write_atomically(tmp_path / "file", b"old")
    with (tmp_path / "file").open("rb") as reader:
        write_atomically(tmp_path / "file", b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_nan_and_infinity(value, tmp_path):
    with pytest.raises(DatasetError, match="not JSON compliant"):
        Json(str(tmp_path / "file")).save({"a": [value]})
    assert names(tmp_path) == []


def test_json_sorts_its_keys_and_ends_with_a_newline(tmp_path):
    Json(str(tmp_path / "file")).save({"b": 1, "a": 2})
    text = (tmp_path / "file").read_text()
    assert list(json.loads(text)) == ["a", "b"]
    assert text.endswith("}\n")


def test_without_a_file_optional_json_loads_none_and_json_is_an_error(tmp_path):
    assert OptionalJson(str(tmp_path / "file")).load() is None
    with pytest.raises(DatasetError):
        Json(str(tmp_path / "file")).load()


def test_optional_json_that_is_broken_is_an_error(tmp_path):
    (tmp_path / "file").write_text("{")
    with pytest.raises(DatasetError):
        OptionalJson(str(tmp_path / "file")).load()


def test_parquet_keeps_attrs(tmp_path):
    table = TABLE.copy()
    table.attrs["facts"] = {"cell": "a.b.c", "classes": ["x", "y"], "seed": 3}
    dataset = Parquet(str(tmp_path / "file"))
    dataset.save(table)
    assert dataset.load().attrs == table.attrs


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=20))
def test_csv_keeps_every_digit_of_a_float(numbers):
    dataset = Csv("unused")
    table = pd.DataFrame({"x": np.array(numbers)})
    assert dataset.decode(dataset.encode(table))["x"].tolist() == numbers


def test_an_array_is_mapped_read_only(tmp_path):
    dataset = Array(str(tmp_path / "file"))
    dataset.save(np.zeros((4, 2), np.uint8))
    loaded = dataset.load()
    assert isinstance(loaded, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded[0] = 1


def test_a_folder_replaces_all_old_files_and_loads_as_its_path(tmp_path):
    dataset = Folder(str(tmp_path / "deep/report"))
    dataset.save({"report.md": b"1", "old.png": b"2"})
    dataset.save({"report.md": b"3"})
    assert dataset.load() == tmp_path / "deep/report"
    assert names(tmp_path) == ["deep", "deep/report", "deep/report/report.md"]
    assert (dataset.load() / "report.md").read_bytes() == b"3"


def test_a_folder_that_cannot_be_saved_leaves_the_old_one_unchanged(tmp_path):
    dataset = Folder(str(tmp_path / "report"))
    dataset.save({"report.md": b"old"})
    with pytest.raises(DatasetError):
        dataset.save({"report.md": b"new", "bad.png": None})
    assert names(tmp_path) == ["report", "report/report.md"]
    assert (tmp_path / "report/report.md").read_bytes() == b"old"


def test_a_scratch_folder_is_created_when_it_is_loaded(tmp_path):
    dataset = Scratch(str(tmp_path / "a/scratch"))
    assert not dataset.exists()
    assert dataset.load().is_dir()
    (dataset.load() / "resume").write_bytes(b"x")
    assert names(dataset.load()) == ["resume"]


@pytest.mark.parametrize("kind", [File, Text, Json, OptionalJson, Parquet, Csv, Array, Folder, Scratch])
def test_a_dataset_describes_itself_by_its_path_and_keeps_its_metadata(kind):
    dataset = kind("data/file", metadata={"ledger": "none"})
    assert "data/file" in str(dataset)
    assert dataset.metadata == {"ledger": "none"}


def test_before_a_node_runs_only_its_own_old_outputs_are_deleted(tmp_path):
    file, folder, other = (tmp_path / name for name in ("file", "folder", "other"))
    for path in (file, folder / "deep/x", other):
        write_atomically(path, b"old")
    catalog = DataCatalog(
        {"a": File(str(file)), "b": Folder(str(folder)), "c": File(str(other)), "d": MemoryDataset(1)}
        | {"e": File(str(tmp_path / "never written"))}
    )
    StaleOutputs().before_node_run(Node(lambda c: None, ["c"], ["a", "b", "d", "e"], tags="parameters"), catalog)
    assert names(tmp_path) == ["other"]


@pytest.mark.parametrize("tags", ["train", "export", "evaluate"])
def test_a_model_is_not_deleted_before_the_new_one_is_whole(tmp_path, tags):
    write_atomically(tmp_path / "file", b"old")
    catalog = DataCatalog({"a": File(str(tmp_path / "file"))})
    StaleOutputs().before_node_run(Node(lambda: None, None, "a", tags=tags), catalog)
    assert names(tmp_path) == ["file"]


@pytest.fixture
def judged(tmp_path):
    """A catalog with a verdict and a report on benchmark b."""
    for path in (tmp_path / "verdict.json", tmp_path / "report/report.md"):
        write_atomically(path, b"{}")
    datasets = {"b.verdict": Json(str(tmp_path / "verdict.json")), "b.report": Folder(str(tmp_path / "report"))}
    return DataCatalog(datasets | {"b.ce.s0.x": Json(str(tmp_path / "x"))})


@pytest.mark.parametrize(
    ("tags", "verdict_stays"),
    [("train", False), ("evaluate", False), ("report", False), ("parameters", True), ("gate", True)],
)
# Kedro warns of a dataset of another namespace, once in a process
@pytest.mark.filterwarnings("ignore:One or more dataset names contain '.' characters")
def test_a_run_that_changes_results_deletes_the_verdict_that_the_old_ones_led_to(tmp_path, judged, tags, verdict_stays):
    """It does so before its first node, so that a run that is refused in between leaves no report that passes."""
    node = Node(lambda: None, None, "b.ce.s0.x", tags=tags, namespace="b.ce.s0")
    StaleOutputs().before_pipeline_run(Pipeline([node]), judged)
    assert names(tmp_path) == (["report", "report/report.md", "verdict.json"] if verdict_stays else [])


def test_a_draw_that_is_killed_leaves_no_note_of_the_old_data(tmp_path, judged):
    write_atomically(tmp_path / "identity.json", b"{}")
    judged["b.data_identity"] = Json(str(tmp_path / "identity.json"))
    draw = Node(lambda: None, None, "b.manifest", tags="split", name="draw", namespace="b")
    StaleOutputs().before_pipeline_run(Pipeline([draw]), judged)
    assert "identity.json" in names(tmp_path), "a run that is refused before it draws leaves the data as they were"
    StaleOutputs().before_node_run(draw, judged)
    assert "identity.json" not in names(tmp_path)


@pytest.mark.filterwarnings("ignore:One or more dataset names contain '.' characters")
def test_a_run_that_writes_the_report_of_a_verdict_keeps_the_verdict(tmp_path, judged):
    node = Node(lambda verdict: None, "b.verdict", "b.report", tags="report", name="report", namespace="b")
    StaleOutputs().before_pipeline_run(Pipeline([node]), judged)
    assert names(tmp_path) == ["verdict.json"]


def test_a_file_that_is_missing_is_named_with_its_reader_and_the_command_before_anything_runs(tmp_path):
    catalog = DataCatalog({"b.metrics": Json(str(tmp_path / "metrics.json")), "b.maybe": OptionalJson("/no/file")})
    stage = Pipeline([Node(lambda *_: 1, ["b.metrics", "b.maybe"], "b.verdict", name="judge", namespace="b")])
    with pytest.raises(Refused, match=r"b\.metrics is missing, which b\.judge reads: .* kedro run --pipeline=b,"):
        MissingInputs().before_pipeline_run(stage, catalog)
    catalog["b.metrics"].save({})
    MissingInputs().before_pipeline_run(stage, catalog)


@pytest.mark.parametrize("digest", ["123456789012", "12345e678901", "000000000012"])
def test_a_digest_that_looks_like_a_number_stays_text_in_a_csv(tmp_path, digest):
    dataset = Csv(str(tmp_path / "log.csv"))
    dataset.save(pd.DataFrame({"epoch": [0, 1], "recipe": [digest] * 2, "loss": [0.5, 0.25]}))
    table = dataset.load()
    assert table["recipe"].tolist() == [digest] * 2
    assert table["loss"].tolist() == [0.5, 0.25]
