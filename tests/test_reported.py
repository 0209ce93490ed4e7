"""Summaries of a run over its seeds, and the verdict on what a paper reports of it."""

import numpy as np
import pytest

from ltpipe.config.spec import Refused, parse
from ltpipe.evaluation.claims import Claim
from ltpipe.evaluation.judge import Gate
from ltpipe.evaluation.measure import flatten
from ltpipe.evaluation.reported import Reported, SharedReported, compare_with_reported
from ltpipe.evaluation.summary import IDENTITY, summarise

UNREPORTED = Reported(why="nobody reports it")
PAPER = {"value": 90.0, "metric": "clt.accuracy.all", "tolerance": 1.0, "source": "table 2", "gates": True}


@pytest.mark.parametrize(
    ("mean", "std", "n", "verdict"),
    [
        (90.0, 0.1, 3, "pass"),
        (89.0, 0.1, 3, "pass"),
        (91.0, 0.1, 3, "pass"),
        (88.99, 0.1, 3, "below"),
        (91.01, 0.1, 3, "above"),
        (90.0, 0.87, 3, "inconclusive"),  # two standard errors: 1.0046
        (90.0, 0.86, 3, "pass"),  # 0.9930
        (50.0, 0.87, 3, "inconclusive"),
        (90.0, None, 1, "inconclusive"),
        (float("nan"), float("nan"), 3, "incomparable"),
    ],
)
def test_the_verdict_on_a_reported_number(mean, std, n, verdict):
    table = {"clt.accuracy.all": {"mean": mean, "std": std}}
    assert compare_with_reported(Reported(**PAPER), table, n)["verdict"] == verdict


def test_a_run_that_nobody_reports_is_unreported():
    assert compare_with_reported(UNREPORTED, {}, 3)["verdict"] == "unreported"


@pytest.mark.parametrize(
    "metric", ["clt.precision.few", "clt.recall.all", "clt.accuracy.attribute0", "clt.f1_of_averages", "clt.ece"]
)
def test_a_gate_takes_every_path_of_the_menu(metric):
    assert parse(Gate, {"primary": metric}, "gate").all_metrics() == [metric]


@pytest.mark.parametrize(
    ("metric", "valid"),
    [
        ("accuracy", "metrics: accuracy, ece, f1_of_averages"),
        ("clt.n", "metrics: accuracy, ece, f1_of_averages"),
        ("clt.accuracy", "parts of accuracy: all, many"),
        ("clt.accuracy.fwe", "parts of accuracy: all, many"),
        ("clt.accuracy.all.mean", "parts of accuracy: all, many"),
        ("clt.f1_of_averages.all", "f1_of_averages has no parts, write clt.f1_of_averages"),
    ],
)
@pytest.mark.parametrize(
    ("block", "where", "rest"),
    [
        (Gate, "metrics.1", {"primary": "clt.accuracy.all"}),
        (Reported, "metric", {key: value for key, value in PAPER.items() if key != "metric"}),
        (SharedReported, "metric", {}),
        (Claim, "metric", {"better": "a", "than": "b", "source": "table 2"}),
    ],
)
def test_a_path_that_is_not_of_the_menu_is_refused_with_what_is(block, where, rest, metric, valid):
    value = {"metrics": ["clt.f1_of_averages", metric]} if block is Gate else {"metric": metric}
    with pytest.raises(Refused) as refused:
        parse(block, value | rest, "block")
    assert refused.value.message.startswith(f"block:\n  {where}: {metric!r}")
    assert valid in refused.value.message
    assert refused.value.message.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": None}, "needs metric, tolerance and source"),
        ({"tolerance": None}, "needs metric, tolerance and source"),
        ({"source": None}, "needs metric, tolerance and source"),
        ({"gates": False}, "a number that does not gate needs a reason: why"),
        ({"value": None}, "gates: true needs a value"),
        ({"value": 101}, "less than or equal to 100"),
        ({"tolerance": 0}, "greater than 0"),
        ({"values": 3}, "unknown key values; valid keys: .*value, metric"),
    ],
)
def test_an_incomplete_reported_number_is_refused(change, message):
    with pytest.raises(Refused, match=message):
        parse(Reported, PAPER | change, "reported")


def test_a_summary_is_mean_and_sample_deviation_over_the_seeds(cell):
    cells = [cell("ce", seed).metrics for seed in range(3)]
    result = summarise(UNREPORTED, *cells)
    values = [flatten(c["protocols"])["glt.accuracy.few"] for c in cells]
    assert result["metrics"]["glt.accuracy.few"] == {
        "mean": pytest.approx(np.mean(values)),
        "std": pytest.approx(np.std(values, ddof=1)),
        "values": values,
    }
    assert (result["run"], result["n"], result["seeds"]) == ("ce", 3, [0, 1, 2])
    assert result["data"] == [cells[0]["data"]]
    assert result["code"] == [cells[0]["code"]]
    assert result["cells"] == [{key: made[key] for key in IDENTITY} for made in cells]


def test_a_summary_of_one_seed_has_no_deviation(cell):
    result = summarise(UNREPORTED, cell("ce", 0).metrics)
    assert {m["std"] for m in result["metrics"].values()} == {None}


@pytest.mark.parametrize("others", [[("balanced", 1)], [("ce", 0)]], ids=["two runs", "one cell twice"])
def test_a_summary_is_of_different_seeds_of_one_run(cell, others):
    with pytest.raises(Refused, match="metrics of one run and different seeds are needed, not of"):
        summarise(UNREPORTED, cell("ce", 0).metrics, *(cell(*other).metrics for other in others))


def test_seeds_that_were_measured_by_other_code_are_refused(cell):
    clt = {"clt": cell("ce", 1).metrics["protocols"]["clt"]}
    with pytest.raises(
        Refused, match=r"digits_glt\.ce\.s1 has no glt\..*, which other seeds have: measure all of them"
    ):
        summarise(UNREPORTED, cell("ce", 0).metrics, cell("ce", 1).metrics | {"protocols": clt})
