"""`ltpipe accept`: what it refuses to accept, what it writes, and that it writes nothing if it refuses."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner
from kedro.io import DatasetError

from ltpipe.accept import Work
from ltpipe.accept import command as main
from ltpipe.benchmark import Benchmark
from ltpipe.config.spec import Refused
from ltpipe.evaluation.baseline import check_bits, read_accepted, seal
from ltpipe.storage.datasets import Json, Parquet

SEEDS = range(6)


class Catalog(dict):
    """A catalog of what is measured, by dataset's name without the benchmark's."""

    def load(self, name):
        name = name.removeprefix("digits_glt.")
        if name not in self:
            raise DatasetError(f"no {name}")
        return self[name]


@pytest.fixture
def catalog(manifest, data_identity):
    return Catalog(manifest=manifest, data_identity=data_identity, accepted=None)


@pytest.fixture
def accept(spec, cell, catalog):
    """accept(runs, ...): accept the runs, which were measured with a share `wrong` of wrong predictions."""

    def make(*runs, wrong=0.1, worse=False, retire=(), seeds=SEEDS, gone=(), **gate):
        for run in runs:
            for seed in seeds:
                made = cell(run, seed, wrong)
                catalog[f"{run}.s{seed}.metrics"], catalog[f"{run}.s{seed}.predictions"] = (
                    made.metrics,
                    made.predictions,
                )
        for name in gone:
            del catalog[name]
        rows = {run: {"train": {"method": "ce", "split": "train_glt"}, "reported": {"why": "a test"}} for run in runs}
        whole = dict(spec) | {"runs": rows, "seeds": {f"s{seed}": seed for seed in seeds}, "claims": [], "reported": {}}
        whole["gate"] = spec.gate.model_copy(update=gate)
        work = Work("digits_glt", Benchmark.model_validate(whole), catalog)
        before, after = work.accept("a reason", worse, retire)
        catalog["accepted"] = after
        return before, after, work

    return make


def test_what_is_accepted_first_is_a_baseline_of_every_cell(accept, manifest, spec):
    before, after, work = accept("ce", "new")
    assert before == {"runs": {}}
    baseline = read_accepted(after, "digits_glt")
    check_bits(baseline, manifest, spec.evaluate)
    assert {run: entry.n for run, entry in baseline.runs.items()} == {"ce": 6, "new": 6}
    assert (baseline.reason, baseline.gate) == ("a reason", spec.gate.model_dump(mode="json"))
    lines = work.sight()
    assert len(lines) == 6
    assert re.fullmatch(r"ce glt\.accuracy\.all: a fall of [\d.]+ points is caught four times in five\n", lines[0])


def test_a_regression_is_accepted_only_if_that_is_asked_for(accept, catalog):
    _, first, _ = accept("ce")
    with pytest.raises(Refused) as refused:
        accept("ce", wrong=0.3)
    assert refused.value.message.startswith("these numbers are worse than the accepted ones:\n  ce glt.accuracy.all: ")
    assert "all comparisons together" in refused.value.message
    assert refused.value.message.endswith("\nAccept them with --worse")
    assert catalog["accepted"] is first
    before, after, _ = accept("ce", wrong=0.3, worse=True)
    assert before == first and after["runs"]["ce"]["mean"]["glt.accuracy.all"] < 75


def test_a_weaker_gate_does_not_hide_a_regression(accept):
    accept("ce")
    with pytest.raises(Refused, match="worse than the accepted"):
        accept("ce", wrong=0.6, against="nothing")


def test_a_rise_and_a_new_run_are_no_regression(accept):
    accept("ce")
    accept("ce", "margin", wrong=0.05)


@pytest.mark.parametrize("part", ["metrics", "predictions"])
def test_a_cell_that_is_not_measured_is_refused(accept, part):
    with pytest.raises(Refused, match="not every cell is measured; kedro run --pipeline=digits_glt first"):
        accept("ce", gone=[f"ce.s3.{part}"])


def test_a_cell_of_another_state_is_refused(accept, catalog):
    _, _, work = accept("ce")
    catalog["ce.s0.metrics"] = catalog["ce.s0.metrics"] | {"measured": "old"}
    with pytest.raises(Refused, match=r"digits_glt\.ce\.s0 is of another state: measured is old, not "):
        Work("digits_glt", work.spec, catalog).accept("a reason", False, ())


@pytest.mark.parametrize(
    ("first", "then", "retire", "message"),
    [
        (["ce"], ["ce"], ["ce"], "--retire ce: it is a run of digits_glt; take it out of its file first"),
        (["ce"], ["ce"], ["ride"], "--retire ride: it was never accepted; accepted runs: ce"),
        ([], ["ce"], ["ride"], "--retire ride: it was never accepted; accepted runs: none"),
        (["ce", "new"], ["ce"], [], "accepted runs that are not run any more: new; say so with --retire RUN"),
    ],
)
def test_a_run_disappears_only_if_it_was_accepted_and_is_retired(accept, first, then, retire, message):
    if first:
        accept(*first)
    with pytest.raises(Refused) as refused:
        accept(*then, retire=retire)
    assert refused.value.message == message


def test_a_retired_run_is_kept_with_its_reason_until_it_is_run_again(accept):
    accept("ce", "new")
    for retire in (["new"], []):
        _, after, _ = accept("ce", retire=retire)
        assert after["retired"] == {"new": "a reason"} and list(after["runs"]) == ["ce"]
    _, after, _ = accept("ce", "new")
    assert after["retired"] == {} and list(after["runs"]) == ["ce", "new"]


@pytest.mark.parametrize(("gate", "wrong"), [({"ceiling": 1.0}, 0.1), ({}, 0.88)], ids=["ceiling", "guessing"])
def test_a_baseline_with_which_the_gate_would_not_see_is_refused(accept, catalog, gate, wrong):
    """Compared with themselves, or by their own seeds, the numbers would have no noise."""
    with pytest.raises(
        Refused, match=r"the gate would not see with this baseline:\n  ce \S+: inconclusive[^\0]*--seeds N"
    ):
        accept("ce", wrong=wrong, **gate)
    assert catalog["accepted"] is None


def test_an_accepted_file_that_was_edited_is_refused(accept, catalog):
    _, after, _ = accept("ce")
    catalog["accepted"] = after | {"reason": "another"}
    with pytest.raises(Refused, match="its digest is not that of its content: it was edited"):
        accept("ce")


# the command


def test_an_unknown_benchmark_is_refused_with_the_valid_names(root, monkeypatch):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(main, ["digits", "--reason", "x"])
    assert done.exit_code == 2
    assert re.search("no benchmark 'digits'; benchmarks: .*digits_glt", done.output)


@pytest.mark.parametrize("arguments", [["digits_glt"], ["digits_glt", "--reason", "  "]])
def test_a_reason_must_be_given(root, monkeypatch, arguments):
    monkeypatch.chdir(root)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "--reason" in done.output


@pytest.fixture
def call(copied, environment):
    """call(arguments...): run the command in the copy."""
    command = [sys.executable, "-m", "ltpipe.accept", "digits_glt", "--reason", "a better loss"]
    return lambda *more: subprocess.run([*command, *more], cwd=copied, env=environment, capture_output=True, text=True)


def test_nothing_is_written_if_a_cell_is_not_measured(copied, call):
    done = call()
    assert done.returncode == 2, done.stderr
    assert "not every cell is measured; kedro run --pipeline=digits_glt first" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (copied / "conf/accepted").exists()


def test_the_command_writes_every_cell_and_says_what_changes(copied, call, content, cell, accept_cells, request):
    """Also if a run trains on another split, whose protocols no gated metric belongs to."""
    balanced = {"train": {"method": "ce", "split": "train_cbl"}}
    runs = {"balanced": balanced, "ce": content["digits_glt"]["runs"]["ce"]}
    content["digits_glt"] |= {"runs": runs, "claims": [], "seeds": {f"s{seed}": seed for seed in SEEDS}}
    content["digits_glt"]["gate"]["runs"] = ["ce"]
    (copied / "conf/base/parameters/digits_glt.yml").write_text(yaml.safe_dump(content))
    folder = copied / "data/05_model_input/digits_glt"
    Parquet(str(folder / "manifest.parquet")).save(request.getfixturevalue("manifest"))
    Json(str(folder / "data_identity.json")).save(request.getfixturevalue("data_identity"))

    def measured(wrong):
        cells = [cell(run, seed, wrong) for run in runs for seed in SEEDS]
        for made in cells:
            place = made.metrics["cell"].replace(".", "/")
            Json(str(copied / f"data/08_reporting/{place}/metrics.json")).save(made.metrics)
            Parquet(str(copied / f"data/07_model_output/{place}/predictions.parquet")).save(made.predictions)
        return cells

    cells, path = measured(0.1), copied / "conf/accepted/digits_glt.json"
    done = call()
    assert done.returncode == 0, done.stderr
    written = json.loads(path.read_text())
    assert written == seal(accept_cells(cells, "a better loss") | {"gate": written["gate"]})
    assert written["gate"]["runs"] == ["ce"]
    mean = written["runs"]["ce"]["mean"]["glt.accuracy.few"]
    assert f"ce glt.accuracy.few: - -> {mean:.2f} (n 6)\n" in done.stdout
    assert done.stdout.endswith(
        "wrote conf/accepted/digits_glt.json: commit conf/. Judge again: kedro run --pipeline=digits_glt\n"
    )
    measured(0.3)
    before = path.read_bytes()
    done = call()
    assert done.returncode == 2 and "these numbers are worse than the accepted ones" in done.stderr
    assert path.read_bytes() == before
    assert call("--worse").returncode == 0 and path.read_bytes() != before
    assert [file.name for file in path.parent.iterdir()] == ["digits_glt.json"]
