"""The accepted baseline: what it stores of each image, and the command that writes it."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ltpipe.accept import command as main
from ltpipe.evaluation.baseline import build_baseline, pack_bits, unpack_bits
from ltpipe.evaluation.measure import flatten
from ltpipe.storage.datasets import Json, Parquet


def build(cells, reason="it was right"):
    return build_baseline("digits_glt", [(c.metrics, c.predictions) for c in cells], reason)


@given(st.lists(st.booleans(), max_size=70))
def test_bits_survive_packing(bits):
    assert unpack_bits(pack_bits(np.array(bits, dtype=bool)), len(bits)).tolist() == bits


def test_packed_bits_are_text_of_a_sixth_of_the_images():
    assert len(pack_bits(np.ones(2400, bool))) == 400


def test_a_baseline_names_benchmark_data_reason_and_code(cell):
    made = build([cell("ce", 0), cell("ce", 1), cell("logit_adjust", 0)])
    assert (made["benchmark"], made["reason"]) == ("digits_glt", "it was right")
    assert made["data"] == cell().metrics["data"]
    assert {run: entry["code"] for run, entry in made["runs"].items()} == {
        "ce": "code-of-ce",
        "logit_adjust": "code-of-logit_adjust",
    }
    assert list(made["runs"]["ce"]["seeds"]) == ["s0", "s1"]
    assert [made["runs"]["ce"]["seeds"][s]["seed"] for s in ("s0", "s1")] == [0, 1]


def test_mean_and_sample_deviation_are_over_the_seeds(cell):
    cells = [cell("ce", seed) for seed in range(3)]
    values = [c.metrics["protocols"]["glt"]["accuracy"]["few"] for c in cells]
    entry = build(cells)["runs"]["ce"]
    assert entry["n"] == 3
    assert entry["mean"]["glt.accuracy.few"] == pytest.approx(np.mean(values), abs=1e-6)
    assert entry["std"]["glt.accuracy.few"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert set(entry["mean"]) == set(entry["std"]) == set(flatten(cells[0].metrics["protocols"]))


def test_a_single_seed_has_no_deviation(cell):
    entry = build([cell("ce", 0)])["runs"]["ce"]
    assert entry["n"] == 1
    assert set(entry["std"].values()) == {None}


def test_the_bits_are_the_correctness_of_each_test_image_in_id_order(cell):
    made = cell("ce", 0)
    bits = build([made])["runs"]["ce"]["seeds"]["s0"]["correct"]
    for split in ("test_cbl", "test_gbl"):
        rows = made.predictions[made.predictions["split"] == split].sort_values("id")
        right = (rows["label"] == rows["predicted"]).tolist()
        assert unpack_bits(bits[split], len(rows)).tolist() == right


def test_the_bits_do_not_depend_on_the_order_of_the_predictions(cell):
    made = cell("ce", 0)
    shuffled = made._replace(predictions=made.predictions.sample(frac=1, random_state=0))
    assert build([shuffled]) == build([made])


def test_a_baseline_is_strict_json(cell):
    text = json.dumps(build([cell("ce", 0), cell("ce", 1)]), allow_nan=False)
    assert json.loads(text) == build([cell("ce", 0), cell("ce", 1)])


def test_cells_of_different_data_are_refused(cell):
    other = cell("ce", 1)
    other = other._replace(metrics=other.metrics | {"data": "0" * 16})
    with pytest.raises(ValueError, match="different data"):
        build([cell("ce", 0), other])


def test_accept_refuses_an_unknown_benchmark_with_the_valid_names(root, monkeypatch):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(main, ["digits", "--reason", "x"])
    assert done.exit_code == 2
    assert re.search("no benchmark 'digits'; benchmarks: .*digits_glt", done.output)


@pytest.mark.parametrize("arguments", [["digits_glt"], ["digits_glt", "--reason", "  "]])
def test_accept_refuses_to_accept_without_a_reason(root, monkeypatch, arguments):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "--reason" in done.output


def accept(copied, environment, reason="a better loss"):
    command = [sys.executable, "-m", "ltpipe.accept", "digits_glt", "--reason", reason]
    return subprocess.run(command, cwd=copied, env=environment, capture_output=True, text=True)


def test_accept_writes_nothing_if_a_cell_is_not_measured(copied, environment):
    done = accept(copied, environment)
    assert done.returncode == 2, done.stderr
    assert "not every cell is measured; kedro run --pipeline=digits_glt first" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (copied / "conf/accepted").exists()


def test_accept_writes_the_baseline_of_every_cell_and_says_what_changes(copied, environment, content, cell):
    """Also if a run trains on another split, whose protocols no gated metric belongs to."""
    runs = content["digits_glt"]["runs"]
    balanced = {"train": {"method": "ce", "split": "train_cbl"}}
    content["digits_glt"] |= {"runs": {"balanced": balanced, "ce": runs["ce"]}, "claims": []}
    (copied / "conf/base/parameters/digits_glt.yml").write_text(yaml.safe_dump(content))
    splits = {"balanced": "train_cbl", "ce": "train_glt"}
    cells = [cell(run, seed, split=split) for run, split in splits.items() for seed in range(3)]
    for made in cells:
        place = made.metrics["cell"].replace(".", "/")
        Json(str(copied / f"data/08_reporting/{place}/metrics.json")).save(made.metrics)
        Parquet(str(copied / f"data/07_model_output/{place}/predictions.parquet")).save(made.predictions)
    done = accept(copied, environment)
    assert done.returncode == 0, done.stderr
    written = json.loads((copied / "conf/accepted/digits_glt.json").read_text())
    assert written == build(cells, "a better loss")
    mean = written["runs"]["ce"]["mean"]["glt.accuracy.few"]
    assert f"ce glt.accuracy.few: - -> {mean:.2f} (n 3)\n" in done.stdout
    assert done.stdout.endswith("judge again: kedro run --pipeline=digits_glt --tags=judge,gate\n")
    assert "wrote conf/accepted/digits_glt.json; " in done.stdout
    assert [p.name for p in (copied / "conf/accepted").iterdir()] == ["digits_glt.json"]
