"""The gate: exit codes, and what it says last."""

import json
import re

import pytest

from ltpipe.config.spec import Refused
from ltpipe.evaluation.baseline import seal
from ltpipe.evaluation.gate import GateFailed, NoBaseline, _recommended, gate
from ltpipe.evaluation.judge import judge
from ltpipe.evaluation.reported import Reported
from ltpipe.evaluation.summary import summarise

NOT_REPORTED = Reported(why="a test")


@pytest.fixture
def end(cell, manifest, spec, state_of, accepted, tmp_path, caplog):
    """end(wrong, ...): judge ce with seeds 0 to 2 against the accepted baseline, and return what the gate says."""
    caplog.set_level("INFO", logger="ltpipe.gate")

    def make(wrong=0.1, baseline=accepted, later=None, paper=NOT_REPORTED, **settings):
        summary = summarise(paper, *(cell("ce", seed, wrong).metrics for seed in range(3)))
        state = state_of(summary, accepted=baseline)
        block = spec.gate.model_copy(update=settings)
        gate(
            judge(manifest, baseline, block, spec.evaluate, state, summary), tmp_path / "report", state | (later or {})
        )
        return caplog.messages[-1]

    return make


def test_a_pass_says_how_much_was_compared_and_what_would_be_caught(end):
    caught = r"a fall of \d\.\d\d points of glt.accuracy.all is caught 4 times in 5"
    assert re.fullmatch(f"digits_glt: the gate passes, 3 comparisons; {caught}", end())


def test_a_pass_says_where_the_report_is(end, tmp_path, caplog):
    end()
    assert f"report: {tmp_path}/report/report.html" in caplog.messages


def test_changed_settings_are_said_in_the_end(end):
    assert end(level=0.5, metrics=[]).endswith(
        "\nchanged since accepted: gate.metrics: [], when accepted ['clt.accuracy.all', 'glt.accuracy.few']; "
        "gate.level: 0.5, when accepted 0.95"
    )
    with pytest.raises(GateFailed, match=r"\nchanged since accepted: gate\.level: 0\.5, when accepted 0\.95\nreport: "):
        end(wrong=0.3, level=0.5)


def test_a_gate_against_nothing_says_that_nothing_is_judged(end):
    assert end(wrong=0.9, baseline=None, against="nothing") == ("digits_glt: nothing is judged (gate.against: nothing)")


def test_a_failure_names_every_reason_and_the_report(end, tmp_path):
    with pytest.raises(GateFailed) as failed:
        end(wrong=0.3)
    first, *reasons, last = failed.value.message.split("\n")
    assert first == "gate failed: 4 reasons:"
    assert [line.split(":")[0] for line in reasons] == [
        "  ce glt.accuracy.all",
        "  ce clt.accuracy.all",
        "  ce glt.accuracy.few",
        "  all comparisons together",
    ]
    assert last == f"report: {tmp_path / 'report'}/report.html"
    assert failed.value.exit_code == 3


def test_without_a_baseline_the_gate_neither_passes_nor_fails(end, tmp_path):
    with pytest.raises(NoBaseline) as none:
        end(baseline=None)
    assert none.value.exit_code == 6
    assert "digits_glt has no accepted baseline yet" in none.value.message
    assert f"{tmp_path / 'report'}/report.html" in none.value.message
    assert 'ltpipe accept digits_glt --reason "first baseline"' in none.value.message


def test_without_a_baseline_a_paper_s_number_that_is_missed_still_fails(end):
    paper = Reported(value=99.9, metric="clt.accuracy.all", tolerance=5.0, source="table 2", gates=True)
    with pytest.raises(GateFailed, match=r"ce clt\.accuracy\.all: below the reported 99\.9"):
        end(baseline=None, paper=paper)


def test_a_baseline_that_contradicts_itself_is_bad_input(end, accepted):
    accepted["runs"]["ce"]["n"] = 2
    with pytest.raises(Refused) as refused:
        end(baseline=seal(accepted))
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("later", "what"),
    [
        ({"parameters": "other"}, "parameters"),
        ({"accepted": "other"}, "accepted baseline"),
        ({"parameters": "other", "accepted": "other"}, "parameters, accepted baseline"),
        ({}, "code or data"),
    ],
)
@pytest.mark.parametrize("wrong", [0.1, 0.3], ids=["passes", "fails"])
def test_a_verdict_on_another_state_is_no_verdict(end, later, what, wrong):
    with pytest.raises(Refused) as refused:
        end(wrong=wrong, later=later | {"digest": "other"})
    assert refused.value.exit_code == 2
    assert refused.value.message == (
        f"the verdict on digits_glt is of another state: {what}. "
        "Judge this one: kedro run --pipeline=digits_glt --tags=report,gate, or dvc repro"
    )


def test_the_recommended_model_is_named_where_it_is(tmp_path):
    """A look reads the cells that it did not train from the results: their models are not in its own folder."""
    report, model = tmp_path / "08_reporting/toy/report", "06_models/toy/ce/s0/model.onnx"
    report.mkdir(parents=True)
    assert _recommended(report, "state") == []
    (report / "classes.json").write_text(json.dumps({"state": "state", "recommended": "ce", "model": model}))
    assert _recommended(report, "another") == []
    assert _recommended(report, "state") == [f"recommended by validation: ce, {model}, which is not below {tmp_path}"]
    (tmp_path / model).parent.mkdir(parents=True)
    (tmp_path / model).touch()
    assert _recommended(report, "state") == [f"recommended by validation: ce, {tmp_path / model}"]
