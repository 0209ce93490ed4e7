"""The gate: a test for each reason to fail, and for each verdict that passes."""

import json
from functools import partial

import numpy as np
import pytest
from scipy.stats import t

from ltpipe.config.spec import Refused, parse
from ltpipe.evaluation.baseline import build_baseline
from ltpipe.evaluation.claims import Claim
from ltpipe.evaluation.gate import GateFailed, gate
from ltpipe.evaluation.judge import (
    PASSING,
    Gate,
    Reported,
    SharedReported,
    compare_with_reported,
    judge,
    summarise,
)
from ltpipe.evaluation.margin import simulate
from ltpipe.evaluation.measure import flatten

METRICS = ["clt.accuracy.all", "glt.accuracy.all", "glt.accuracy.few"]
UNREPORTED = Reported(why="nobody reports it")
PAPER = {"value": 90.0, "metric": "clt.accuracy.all", "tolerance": 1.0, "source": "table 2", "gates": True}


@pytest.fixture(scope="module")
def summary(cell):
    """summary(run, wrong, seeds, reported, split): a run whose seeds miss a share `wrong` of the images."""

    def make(run="ce", wrong=0.1, seeds=(0, 1, 2), reported=UNREPORTED, split="train_glt"):
        return summarise(reported, *(cell(run, seed, wrong, split).metrics for seed in seeds))

    return make


@pytest.fixture
def judged(manifest, spec, accepted, monkeypatch):
    """judged(summaries...): the verdict; the accepted baseline is of run ce, seeds 0 to 2, 10 % wrong."""
    # a tenth of the replicates, because each of these tests judges
    monkeypatch.setattr("ltpipe.evaluation.judge.simulate", partial(simulate, replicates=400))

    def make(*summaries, accepted=accepted, against="accepted", metrics=METRICS, level=0.95, runs=None):
        block = Gate(metrics=metrics, against=against, level=level, runs=runs)
        return judge(manifest, accepted, block, spec.evaluate, *summaries)

    return make


def verdicts(verdict):
    return [row["verdict"] for row in verdict["rows"]]


def set_mean(summary, metric, value):
    """`summary` with another mean of one metric."""
    return summary | {"metrics": summary["metrics"] | {metric: {"mean": value, "std": 0.1}}}


# what passes


def test_what_was_accepted_passes(judged, summary):
    verdict = judged(summary())
    assert verdict["passes"] is True
    assert verdicts(verdict) == ["pass"] * 3
    assert verdict["failed"] == []
    assert [row["delta"] for row in verdict["rows"]] == pytest.approx([0, 0, 0], abs=1e-6)


def test_other_seeds_of_the_same_quality_pass(judged, summary):
    assert judged(summary(seeds=(7, 8, 9)))["passes"] is True


def test_a_rise_beyond_the_margin_is_improved_and_passes(judged, summary):
    verdict = judged(summary(wrong=0.0))
    assert verdict["passes"] is True
    assert verdicts(verdict) == ["improved"] * 3


def test_a_fall_within_the_margin_passes_and_beyond_it_is_regressed(judged, summary):
    row = judged(summary())["rows"][1]
    edge = row["accepted"] - row["margin"]
    assert verdicts(judged(set_mean(summary(), METRICS[1], edge + 1e-6)))[1] == "pass"
    assert verdicts(judged(set_mean(summary(), METRICS[1], edge - 1e-6)))[1] == "regressed"


def test_a_gate_against_nothing_compares_nothing_and_states_it(judged, summary):
    verdict = judged(summary(wrong=0.9), accepted=None, against="nothing")
    assert verdict["passes"] is True
    assert verdict["against"] == "nothing"
    assert verdicts(verdict) == ["not judged"] * 3


def test_a_run_that_does_not_gate_is_not_judged_and_fails_nothing(judged, summary):
    verdict = judged(summary("ce"), summary("new", wrong=0.5, seeds=(0,)), runs=["ce"])
    assert verdict["passes"] is True
    assert verdicts(verdict) == ["pass"] * 3 + ["not judged"] * 3


def test_a_run_that_does_not_gate_does_not_widen_the_margins(judged, summary, accepted):
    alone = judged(summary("ce"), runs=["ce"])
    accepted["runs"]["new"] = {**accepted["runs"]["ce"], "seeds": {"s0": accepted["runs"]["ce"]["seeds"]["s0"]}}
    assert judged(summary("ce"), summary("new", seeds=(0,)), runs=["ce"])["rows"][:3] == alone["rows"]


def test_an_accepted_run_that_was_not_run_is_named_and_fails_nothing(judged, summary, accepted):
    accepted["runs"]["dro_lt"] = accepted["runs"]["ce"]
    verdict = judged(summary())
    assert verdict["accepted_but_not_run"] == ["dro_lt"]
    assert verdict["passes"] is True


def test_a_run_is_judged_by_the_protocols_of_its_training_split_and_no_others(judged, summary, cell):
    cells = [cell(run, seed, split=f"train_{run}") for run in ("glt", "cbl") for seed in range(3)]
    both = build_baseline("digits_glt", [(c.metrics, c.predictions) for c in cells], "both")
    verdict = judged(
        summary("glt"),
        summary("cbl", split="train_cbl"),
        accepted=both,
        metrics=["clt.accuracy.all", "glt.accuracy.all", "alt.accuracy.few"],
    )
    assert verdict["passes"] is True
    assert [(row["run"], row["metric"]) for row in verdict["rows"]] == [
        ("glt", "clt.accuracy.all"),
        ("glt", "glt.accuracy.all"),
        ("cbl", "alt.accuracy.few"),
    ]


# reasons to fail


def test_a_fall_beyond_the_margin_is_regressed_and_fails(judged, summary):
    verdict = judged(summary(wrong=0.3))
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["regressed"] * 3
    assert len(verdict["failed"]) == 3


def test_one_metric_that_fell_is_enough_to_fail(judged, summary):
    verdict = judged(set_mean(summary(), "glt.accuracy.few", 1.0))
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["pass", "pass", "regressed"]
    assert len(verdict["failed"]) == 1


def test_one_run_that_fell_is_enough_to_fail(judged, summary, accepted):
    accepted["runs"]["logit_adjust"] = accepted["runs"]["ce"]
    verdict = judged(summary("ce"), summary("logit_adjust", wrong=0.3))
    assert verdicts(verdict) == ["pass"] * 3 + ["regressed"] * 3
    assert verdict["passes"] is False


def test_without_an_accepted_file_nothing_is_comparable(judged, summary):
    verdict = judged(summary(), accepted=None)
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["incomparable"] * 3
    assert verdict["failed"] == [
        "no accepted baseline: look at the report, then ltpipe accept BENCHMARK --reason, and judge again "
        "(--tags=judge,gate)"
    ]


def test_a_run_that_was_never_accepted_is_incomparable(judged, summary):
    verdict = judged(summary("ce"), summary("new"))
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["pass"] * 3 + ["incomparable"] * 3
    assert verdict["failed"][0] == f"new {METRICS[0]}: incomparable, the run was never accepted: run ltpipe accept"


def test_a_gate_of_runs_of_which_none_was_accepted_is_incomparable(judged, summary):
    verdict = judged(summary("ce"), summary("new"), runs=["new"])
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["not judged"] * 3 + ["incomparable"] * 3
    assert "never accepted" in verdict["failed"][0]


def test_other_data_are_incomparable(judged, summary, accepted):
    measured, accepted["data"] = accepted["data"], "0" * 16
    verdict = judged(summary())
    assert verdict["passes"] is False
    assert set(verdicts(verdict)) == {"incomparable"}
    assert verdict["failed"] == [f"measured on data {measured}, accepted on {'0' * 16}"]


def test_runs_of_different_data_are_incomparable(judged, summary):
    verdict = judged(summary("ce"), summary("new") | {"data": ["f" * 16]})
    assert verdict["passes"] is False
    assert "measured on data" in verdict["failed"][0]
    assert "f" * 16 in verdict["failed"][0]


def test_a_metric_that_was_not_measured_is_incomparable(judged, summary):
    missing = summary()
    del missing["metrics"]["glt.accuracy.few"]
    verdict = judged(missing)
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["pass", "pass", "incomparable"]
    assert verdict["failed"] == ["ce glt.accuracy.few: incomparable, glt.accuracy.few was not measured"]


def test_a_protocol_that_was_accepted_and_is_no_longer_measured_is_incomparable(judged, summary):
    partly = summary()
    partly["metrics"] = {key: value for key, value in partly["metrics"].items() if not key.startswith("glt.")}
    verdict = judged(partly)
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["pass", "incomparable", "incomparable"]


def test_a_run_that_no_gated_metric_concerns_is_incomparable(judged, summary):
    verdict = judged(summary("new", split="train_cbl"))
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["incomparable"] * 3


def test_a_metric_that_was_not_accepted_is_incomparable(judged, summary, accepted):
    for table in (accepted["runs"]["ce"]["mean"], accepted["runs"]["ce"]["std"]):
        del table["glt.accuracy.few"]
    verdict = judged(summary())
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["pass", "pass", "incomparable"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_incomparable(judged, summary, value):
    verdict = judged(set_mean(summary(), "glt.accuracy.all", value))
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["pass", "incomparable", "pass"]
    assert verdict["failed"] == [f"ce glt.accuracy.all: incomparable, glt.accuracy.all is {value}"]


def test_a_baseline_of_one_seed_is_incomparable(judged, summary, cell):
    made = cell("ce", 0)
    verdict = judged(summary(), accepted=build_baseline("digits_glt", [(made.metrics, made.predictions)], "first"))
    assert verdict["passes"] is False
    assert set(verdicts(verdict)) == {"incomparable"}
    assert verdict["failed"] == ["the accepted baseline has one seed: its noise is unknown, accept at least two"]


@pytest.mark.parametrize(
    ("wrong", "value", "verdict"), [(0.0, 98.0, "above"), (0.2, 98.0, "below"), (0.1, 90.0, "inconclusive")]
)
def test_a_reported_number_that_is_not_reached_fails_if_it_gates(judged, summary, wrong, value, verdict):
    tolerance = 0.01 if verdict == "inconclusive" else 1.9
    paper = Reported(**PAPER | {"value": value, "tolerance": tolerance})
    judgement = judged(summary(wrong=wrong, reported=paper), against="nothing")
    assert judgement["summaries"][0]["reported"]["verdict"] == verdict
    assert judgement["passes"] is False
    measured = judgement["summaries"][0]["metrics"]["clt.accuracy.all"]["mean"]
    assert judgement["failed"] == [
        f"ce clt.accuracy.all: {verdict} the reported {value} (measured {measured:.2f}, tolerance {tolerance})"
    ]


def test_a_reported_metric_that_was_not_measured_fails_if_it_gates(judged, summary):
    verdict = judged(summary(reported=Reported(**PAPER | {"metric": "alt.accuracy.all"})))
    assert verdict["passes"] is False
    assert verdict["failed"] == [
        "ce alt.accuracy.all: incomparable the reported 90.0 (no metric alt.accuracy.all)",
    ]


def test_a_single_seed_never_confirms_a_reported_number(judged, summary):
    verdict = judged(summary(seeds=(0,), reported=Reported(**PAPER | {"tolerance": 50})))
    assert verdict["summaries"][0]["reported"]["verdict"] == "inconclusive"
    assert verdict["passes"] is False


def test_a_reported_number_that_does_not_gate_fails_nothing(judged, summary):
    paper = Reported(**PAPER | {"value": 99.0, "tolerance": 3.0, "gates": False, "why": "other augmentation"})
    verdict = judged(summary(reported=paper))
    assert verdict["summaries"][0]["reported"]["verdict"] == "below"
    assert verdict["passes"] is True


def test_a_reported_number_that_is_reached_passes(judged, summary):
    paper = Reported(**PAPER | {"value": 90.0, "tolerance": 4.0})
    verdict = judged(summary(reported=paper))
    assert verdict["summaries"][0]["reported"]["verdict"] == "pass"
    assert verdict["passes"] is True


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


def test_only_these_verdicts_pass():
    assert set(PASSING) == {"pass", "improved", "unreported", "not judged"}


# margins, and what the gate may ask for


def test_the_margin_of_a_group_comes_from_its_images(judged, summary):
    rows = {row["metric"]: row["margin"] for row in judged(summary())["rows"]}
    assert rows["glt.accuracy.few"] > rows["glt.accuracy.all"] > 100 / 2400


def test_wrong_images_outside_a_group_do_not_change_its_margin(judged, summary, cell):
    def right_but_few(made):
        table = made.predictions.copy()
        table.loc[table["group"] != "few", "predicted"] = table["label"]
        return made.metrics, table

    noisy = build_baseline("digits_glt", [right_but_few(cell("ce", seed, 0.4)) for seed in range(3)], "noise in few")
    rows = judged(summary(), accepted=noisy, metrics=["glt.accuracy.many", "glt.accuracy.few"])["rows"]
    assert rows[0]["margin"] == pytest.approx(100 / 960)
    assert rows[1]["margin"] > 3


def test_the_run_with_the_fewest_seeds_sets_the_margin_of_all(judged, summary):
    alone, mixed = judged(summary(seeds=(0,))), judged(summary(), summary("new", seeds=(0,)))
    assert mixed["rows"][0]["margin"] == alone["rows"][0]["margin"] > judged(summary())["rows"][0]["margin"]


@pytest.mark.parametrize(("runs", "seeds", "freedom"), [(1, 2, 1), (1, 3, 2), (2, 3, 4)])
def test_degrees_of_freedom_are_the_accepted_seeds_minus_one_of_each_run(
    judged, summary, accepted, monkeypatch, runs, seeds, freedom
):
    """Normally distributed falls, the same in all runs and metrics, have the quantiles of Student's t as margins."""
    normal = np.random.RandomState(0).normal(size=40_000)
    falls = {f"ce{number}": dict.fromkeys(METRICS, normal) for number in range(runs)}
    monkeypatch.setattr("ltpipe.evaluation.judge.simulate", lambda *_, **__: falls)
    kept = dict(list(accepted["runs"]["ce"]["seeds"].items())[:seeds])
    accepted["runs"] = dict.fromkeys(falls, accepted["runs"]["ce"] | {"seeds": kept})
    rows = judged(*(summary(run) for run in falls))["rows"]
    assert len(rows) == 3 * runs
    assert [row["margin"] for row in rows] == pytest.approx([t.ppf(0.95, freedom)] * len(rows), rel=0.05)


def test_the_margin_of_seeds_that_agree_is_the_share_of_one_image(judged, summary, accepted):
    for seed in ("s1", "s2"):
        accepted["runs"]["ce"]["seeds"][seed] = accepted["runs"]["ce"]["seeds"]["s0"]
    rows = {row["metric"]: row["margin"] for row in judged(summary())["rows"]}
    assert rows == pytest.approx(
        {"clt.accuracy.all": 100 / 400, "glt.accuracy.all": 100 / 2400, "glt.accuracy.few": 100 / 480}
    )


def test_the_level_of_the_gate_sets_the_margins(judged, summary):
    margins = [judged(summary(), level=level)["rows"][0]["margin"] for level in (0.8, 0.95, 0.99)]
    assert margins[0] < margins[1] < margins[2]


def test_the_verdict_is_the_same_for_the_same_input_and_is_strict_json(judged, summary):
    first, second = (json.dumps(judged(summary()), allow_nan=False) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "metric", ["clt.precision.few", "clt.recall.all", "clt.accuracy.attribute0", "clt.f1", "clt.ece"]
)
def test_a_gate_takes_every_path_of_the_menu(metric):
    assert parse(Gate, {"metrics": [metric]}, "gate").metrics == [metric]


@pytest.mark.parametrize(
    ("metric", "valid"),
    [
        ("accuracy", "metrics: accuracy, ece, f1"),
        ("clt.n", "metrics: accuracy, ece, f1"),
        ("clt.accuracy", "parts of accuracy: all, many"),
        ("clt.accuracy.fwe", "parts of accuracy: all, many"),
        ("clt.accuracy.all.mean", "parts of accuracy: all, many"),
        ("clt.f1.all", "f1 has no parts, write clt.f1"),
    ],
)
@pytest.mark.parametrize(
    ("block", "where", "rest"),
    [
        (Gate, "metrics.1", {}),
        (Reported, "metric", {key: value for key, value in PAPER.items() if key != "metric"}),
        (SharedReported, "metric", {}),
        (Claim, "metric", {"better": "a", "than": "b", "source": "table 2"}),
    ],
)
def test_a_path_that_is_not_of_the_menu_is_refused_with_what_is(block, where, rest, metric, valid):
    value = {"metrics": ["clt.f1", metric]} if block is Gate else {"metric": metric}
    with pytest.raises(Refused) as refused:
        parse(block, value | rest, "block")
    assert refused.value.message.startswith(f"block:\n  {where}: {metric!r}")
    assert valid in refused.value.message
    assert refused.value.message.count("\n") == 1


@pytest.mark.parametrize("block", [{"metrics": []}, {"metrics": METRICS, "level": 1}, {"metrics": METRICS, "level": 0}])
def test_an_impossible_gate_is_refused(block):
    with pytest.raises(Refused):
        parse(Gate, block, "gate")


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


# summaries


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
    assert result["code"] == ["code-of-ce"]


def test_a_summary_of_one_seed_has_no_deviation(cell):
    result = summarise(UNREPORTED, cell("ce", 0).metrics)
    assert {m["std"] for m in result["metrics"].values()} == {None}


# the gate itself


def test_the_gate_raises_nothing_if_the_verdict_passes(judged, summary, tmp_path):
    assert gate(judged(summary()), tmp_path) is None


def test_the_gate_names_run_metric_measured_accepted_margin_and_report(judged, summary, tmp_path):
    verdict = judged(summary(wrong=0.3))
    with pytest.raises(GateFailed) as failed:
        gate(verdict, tmp_path / "report")
    message = failed.value.message
    for row in verdict["rows"]:
        assert (
            f"  {row['run']} {row['metric']}: {row['mean']:.2f} (n 3) is {row['accepted'] - row['mean']:.2f} below "
            f"the accepted {row['accepted']:.2f}, margin {row['margin']:.2f}\n"
        ) in message
    assert message.endswith(f"report: {tmp_path / 'report'}")
    assert message.startswith("gate failed: 3 comparisons:\n")


def test_a_failed_gate_has_another_exit_code_than_bad_input():
    assert GateFailed("x").exit_code == 3
    assert Refused("x").exit_code == 2
