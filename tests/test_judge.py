"""Verdicts: a test for each reason to fail, and for each verdict that passes."""

import json
import re

import numpy as np
import pytest
from scipy.stats import t

from ltpipe.config.spec import Refused, parse
from ltpipe.evaluation.baseline import seal
from ltpipe.evaluation.judge import Gate, judge
from ltpipe.evaluation.margin import spread_margin
from ltpipe.evaluation.reported import Reported
from ltpipe.evaluation.summary import summarise
from ltpipe.evaluation.verdict import PASSING, Noise, require_visible, seeds_needed

PRIMARY = "glt.accuracy.all"
METRICS = [PRIMARY, "clt.accuracy.all", "glt.accuracy.few"]
UNREPORTED = Reported(why="nobody reports it")
PAPER = {"value": 90.0, "metric": "clt.accuracy.all", "tolerance": 1.0, "source": "table 2", "gates": True}
OTHER_SEEDS = (7, 8, 9)


@pytest.fixture(scope="module")
def summary(cell):
    """summary(run, wrong, seeds, reported): a run whose seeds miss a share `wrong` of the images."""

    def make(run="ce", wrong=0.1, seeds=(0, 1, 2), reported=UNREPORTED):
        return summarise(reported, *(cell(run, seed, wrong).metrics for seed in seeds))

    return make


@pytest.fixture
def judged(manifest, spec, accepted, state_of):
    """judged(summaries...): the verdict; the accepted baseline is of run ce, seeds 0 to 2, 10 % wrong.

    Other seeds than these have margins of up to 25 points: the ceiling is out of the way unless a test states it.
    """

    def make(*summaries, accepted=accepted, manifest=manifest, **settings):
        gate = spec.gate.model_copy(update={"ceiling": 50.0} | settings)
        content = accepted and seal(accepted)
        return judge(manifest, content, gate, spec.evaluate, state_of(*summaries, accepted=content), *summaries)

    return make


def verdicts(verdict):
    return [row["verdict"] for row in verdict["rows"]]


def moved(summary, shift, metric=PRIMARY):
    """`summary` with the values of one metric moved by `shift`, one number or one for each seed."""
    values = [float(v) for v in np.array(summary["metrics"][metric]["values"]) + shift]
    with np.errstate(invalid="ignore"):  # a shift may be infinite
        spread = {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": values}
    return summary | {"metrics": summary["metrics"] | {metric: spread}}


def without(summary, prefix):
    """`summary` without the metrics that begin so."""
    return summary | {"metrics": {k: v for k, v in summary["metrics"].items() if not k.startswith(prefix)}}


# what passes


def test_what_was_accepted_passes(judged, summary):
    verdict = judged(summary())
    assert verdict["passes"] is True
    assert (verdict["baseline"], verdict["failed"], verdict["settings"][1:]) == ("accepted", [], [])
    assert verdicts(verdict) == ["pass"] * 3
    assert [row["delta"] for row in verdict["rows"]] == pytest.approx([0, 0, 0], abs=1e-6)
    assert verdict["together"]["verdict"] == "pass"


def test_other_seeds_of_the_same_quality_pass(judged, summary):
    assert judged(summary(seeds=OTHER_SEEDS))["passes"] is True


def test_a_rise_passes(judged, summary):
    verdict = judged(summary(wrong=0.0))
    assert verdicts(verdict) == ["pass"] * 3
    assert all(row["delta"] > 5 for row in verdict["rows"])


def test_a_fall_within_the_margin_passes_and_beyond_it_is_regressed(judged, summary):
    row = judged(summary(seeds=OTHER_SEEDS))["rows"][0]
    for beyond, expected in ((-1e-6, "pass"), (1e-6, "regressed")):
        fallen = moved(summary(seeds=OTHER_SEEDS), -row["delta"] - row["margin"] - beyond)
        assert judged(fallen)["rows"][0]["verdict"] == expected


def test_a_gate_against_nothing_compares_nothing_and_says_so(judged, summary):
    verdict = judged(summary(wrong=0.9), accepted=None, against="nothing")
    assert (verdict["passes"], verdict["baseline"]) == (True, "nothing")
    assert verdicts(verdict) == ["not judged"] * 3


def test_a_run_that_does_not_gate_is_not_judged_and_changes_no_other_row(judged, summary):
    verdict = judged(summary("ce"), summary("new", wrong=0.5, seeds=(0,)), runs=["ce"])
    assert verdict["passes"] is True
    assert verdicts(verdict) == ["pass"] * 3 + ["not judged"] * 3
    assert verdict["rows"][:3] == judged(summary("ce"), runs=["ce"])["rows"]


def test_a_run_is_judged_by_the_protocols_of_its_training_split_and_no_others(judged, summary, cell, accept_cells):
    both = accept_cells([cell(run, seed) for run in ("ce", "balanced") for seed in range(3)])
    settings = {"primary": "alt.accuracy.all", "metrics": METRICS}
    verdict = judged(summary("ce"), summary("balanced"), accepted=both, **settings)
    assert verdict["passes"] is True
    compared = [(row["run"], row["metric"]) for row in verdict["rows"]]
    assert compared == [*(("ce", metric) for metric in METRICS), ("balanced", "alt.accuracy.all")]


def test_the_verdict_is_the_same_for_the_same_input_and_is_strict_json(judged, summary):
    first, second = (json.dumps(judged(summary()), allow_nan=False) for _ in range(2))
    assert first == second


# what is compared


def test_a_row_shows_accepted_measured_delta_margin_and_what_the_gate_sees(judged, summary, accepted):
    row = judged(summary(seeds=OTHER_SEEDS))["rows"][0]
    entry = accepted["runs"]["ce"]
    assert (row["run"], row["metric"], row["n"], row["accepted_n"]) == ("ce", PRIMARY, 3, 3)
    assert row["accepted"] == pytest.approx(entry["mean"][PRIMARY])
    assert row["delta"] == pytest.approx(row["mean"] - row["accepted"])
    assert row["margin"] == pytest.approx(spread_margin(entry["std"][PRIMARY], 3, 3, 0.05 * 0.9), rel=1e-5)
    assert row["margin"] < row["sees"] < 3 * row["margin"]


def test_equal_seeds_are_compared_in_pairs_and_other_seeds_by_their_spread(judged, summary, accepted):
    paired = judged(moved(summary(), [-0.1, 0.1, -0.2]))["rows"][0]
    error = np.std([0.1, -0.1, 0.2], ddof=1) / np.sqrt(3)
    assert paired["margin"] == pytest.approx(t.ppf(1 - 0.05 * 0.9 / 2, 2) * error, rel=1e-4)
    assert judged(summary(seeds=(1, 2, 7)))["rows"][0]["margin"] > 3 * paired["margin"]


def test_fewer_seeds_that_were_accepted_are_compared_with_the_same_seeds(judged, summary):
    row = judged(summary(seeds=(0, 1)))["rows"][0]
    assert (row["n"], row["accepted_n"]) == (2, 2)
    assert row["delta"] == pytest.approx(0, abs=1e-6)


def test_the_margin_of_numbers_that_did_not_move_is_the_share_of_one_image(judged, summary):
    margins = [row["margin"] for row in judged(summary())["rows"]]
    assert margins == pytest.approx([100 / 2400, 100 / 400, 100 / 480])


def test_the_level_of_the_gate_sets_the_margins(judged, summary):
    margins = [judged(summary(seeds=OTHER_SEEDS), level=level)["rows"][0]["margin"] for level in (0.8, 0.95, 0.99)]
    assert margins == sorted(margins) and margins[0] < margins[2]


def test_a_rise_of_a_metric_of_which_a_smaller_value_is_better_is_regressed(judged, summary):
    for shift, expected in ((60.0, "regressed"), (-60.0, "pass")):
        verdict = judged(moved(summary(), shift, "glt.ece"), primary="glt.ece", metrics=[])
        assert verdicts(verdict) == [expected]
        assert verdict["rows"][0]["delta"] == pytest.approx(shift)
    assert verdict["passes"] is True
    failed = judged(moved(summary(), 60.0, "glt.ece"), primary="glt.ece", metrics=[])["failed"]
    assert len(failed) == 1 and "is 60.00 above the accepted" in failed[0]


def test_the_power_is_that_of_other_seeds_and_rises(judged, summary):
    power = judged(summary(), summary("new"), runs=["ce"])["power"]
    assert power["seeds"] == 3
    rates = [power["false_alarms"], *(share for _, share in power["caught"])]
    assert rates == sorted(rates) and rates[-1] > 0.9
    assert [fall for fall, _ in power["caught"]] == [0.5, 1, 2, 5]


# reasons to fail


def test_a_fall_beyond_the_margin_is_regressed_and_fails(judged, summary):
    verdict = judged(summary(wrong=0.5))
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["regressed"] * 3
    assert len(verdict["failed"]) == 4  # with all comparisons together


def test_one_metric_that_fell_is_enough_to_fail(judged, summary):
    verdict = judged(moved(summary(), -80, "glt.accuracy.few"))
    assert verdicts(verdict) == ["pass", "pass", "regressed"]
    row = verdict["rows"][2]
    assert verdict["failed"][0] == (
        f"ce glt.accuracy.few: {row['mean']:.2f} (n 3) is 80.00 below the accepted {row['accepted']:.2f}, "
        f"margin {row['margin']:.2f}"
    )


def test_one_run_that_fell_is_enough_to_fail(judged, summary, cell, accept_cells):
    both = accept_cells([cell(run, seed) for run in ("ce", "logit_adjust") for seed in range(3)])
    verdict = judged(summary("ce"), summary("logit_adjust", wrong=0.8), accepted=both)
    assert verdicts(verdict) == ["pass"] * 3 + ["regressed"] * 3
    assert verdict["passes"] is False


def test_a_seed_that_collapsed_fails(judged, summary):
    """The paired form alone would not see it: its own noise is as large as the fall."""
    assert verdicts(judged(moved(summary(), [0, 0, -80])))[0] == "regressed"


def test_falls_within_their_margins_fail_if_they_are_many(judged, summary, accepted):
    """Every metric falls by half its deviation, but by more or less in each seed; the mean of the metrics does not."""
    fallen = summary()
    for k, metric in enumerate(METRICS):
        shift = np.where(np.arange(3) == k, 0.1, -0.8)
        fallen = moved(fallen, accepted["runs"]["ce"]["std"][metric] * shift, metric)
    verdict = judged(fallen)
    assert verdicts(verdict) == ["pass"] * 3
    assert verdict["together"]["verdict"] == "regressed" and verdict["passes"] is False
    assert re.fullmatch(
        r"all comparisons together: on average [\d.]+ accepted standard deviations below, margin [\d.]+",
        *verdict["failed"],
    )


def test_without_an_accepted_file_nothing_is_comparable(judged, summary):
    verdict = judged(summary(), accepted=None)
    assert (verdict["passes"], verdict["baseline"]) == (False, "none")
    assert verdicts(verdict) == ["incomparable"] * 3
    assert verdict["failed"] == ["there is no accepted baseline yet, so nothing was compared"]


@pytest.mark.parametrize("runs", [None, ["new"]])
def test_a_run_that_was_never_accepted_is_incomparable(judged, summary, runs):
    verdict = judged(summary("ce"), summary("new"), runs=runs)
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["not judged" if runs else "pass"] * 3 + ["incomparable"] * 3
    assert verdict["failed"][0] == f"new {PRIMARY}: incomparable, the run was never accepted: run ltpipe accept"


@pytest.mark.parametrize("runs", [None, ["ce"]])
def test_an_accepted_run_that_is_not_run_fails_unless_it_was_retired(judged, summary, cell, accept_cells, runs):
    cells = [cell("ce", seed) for seed in range(3)]
    both = accept_cells(cells + [cell("new", seed) for seed in range(3)])
    verdict = judged(summary(), accepted=both, runs=runs)
    assert verdict["passes"] is False and verdicts(verdict) == ["pass"] * 3
    assert verdict["failed"] == [
        "new was accepted and is not run any more: run it, or say why not, "
        'ltpipe accept digits_glt --retire new --reason "..."'
    ]
    retired = judged(summary(), accepted=accept_cells(cells, retired={"new": "too slow"}))
    assert retired["passes"] is True
    assert retired["retired"] == {"new": "too slow"}


def test_other_data_are_incomparable(judged, summary, accepted):
    measured, accepted["data"] = accepted["data"], "0" * 16
    verdict = judged(summary())
    assert verdict["passes"] is False
    assert set(verdicts(verdict)) == {"incomparable"}
    assert len(verdict["failed"]) == 1
    assert verdict["failed"][0].startswith(f"measured on data {measured}, accepted on {'0' * 16}: other pictures")
    assert "ltpipe accept digits_glt --reason" in verdict["failed"][0]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("glt.accuracy.few", ["pass", "pass", "incomparable"]), ("glt.", ["incomparable", "pass", "incomparable"])],
)
def test_a_metric_that_was_accepted_and_is_not_measured_is_incomparable(judged, summary, prefix, expected):
    verdict = judged(without(summary(), prefix))
    assert verdict["passes"] is False
    assert verdicts(verdict) == expected
    assert "ce glt.accuracy.few: incomparable, glt.accuracy.few was not measured" in verdict["failed"]


def test_a_run_that_no_gated_metric_concerns_is_incomparable(judged, summary):
    verdict = judged(summary("ce"), summary("balanced"))
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["pass"] * 3 + ["incomparable"] * 3


def test_a_metric_that_was_not_accepted_is_incomparable(judged, summary, accepted):
    entry = accepted["runs"]["ce"]
    for table in (entry["mean"], entry["std"], *(seed["metrics"] for seed in entry["seeds"].values())):
        del table["glt.ece"]
    verdict = judged(summary(), metrics=["glt.ece"])
    assert verdict["passes"] is False
    assert verdict["failed"] == ["ce glt.ece: incomparable, glt.ece was never accepted: run ltpipe accept"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_incomparable(judged, summary, value):
    verdict = judged(moved(summary(), value))
    assert verdict["passes"] is False
    assert verdicts(verdict) == ["incomparable", "pass", "pass"]
    assert verdict["failed"] == [f"ce {PRIMARY}: incomparable, {PRIMARY} is {value}"]


def test_a_baseline_of_one_seed_is_incomparable(judged, summary, cell, accept_cells):
    verdict = judged(summary(), accepted=accept_cells([cell("ce", 0)]))
    assert verdict["passes"] is False
    assert set(verdicts(verdict)) == {"incomparable"}
    assert verdict["failed"][0].endswith("one accepted seed, whose noise is unknown: accept at least two")


def test_a_margin_beyond_the_ceiling_is_inconclusive_and_says_how_many_seeds_would_do(judged, summary, accepted):
    verdict = judged(summary(seeds=OTHER_SEEDS), ceiling=5.0)
    row = verdict["rows"][1]
    assert (verdict["passes"], row["verdict"]) == (False, "inconclusive")
    stated = re.search(
        r"wider than 5 points \(gate.ceiling\); about (\d+) seeds of the baseline and as many", row["reason"]
    )
    assert stated is not None
    deviation, risk, seeds = accepted["runs"]["ce"]["std"][row["metric"]], 0.05 * 0.05 / 2, int(stated[1])
    assert spread_margin(deviation, seeds, seeds, risk) <= 5 < spread_margin(deviation, seeds - 1, seeds - 1, risk)


def test_a_margin_that_lets_a_guessing_model_pass_is_inconclusive(judged, summary, cell, accept_cells):
    """Accepted: 12 % of ten classes, on the 400 images of Test-CBL."""
    weak = accept_cells([cell("ce", seed, 0.88) for seed in range(3)])
    verdict = judged(summary(wrong=0.88, seeds=OTHER_SEEDS), accepted=weak)
    row = verdict["rows"][1]
    assert (verdict["passes"], row["verdict"]) == (False, "inconclusive")
    assert "the margin is so wide that a guessing model would pass (10.00); about" in row["reason"]
    with pytest.raises(
        Refused, match=r"the gate would not see with this baseline:\n  ce clt\.accuracy\.all: inconclusive"
    ):
        require_visible(verdict["rows"])


@pytest.mark.parametrize("ceiling", [100.0, 3.0, 1.0, 0.5])
def test_so_many_seeds_are_needed_and_not_one_fewer(ceiling):
    needed = seeds_needed(Noise(1.0, 0.01), ceiling, {"n": 1, "accepted_n": 3})
    assert needed is not None
    fits = [spread_margin(1.0, n, n, 0.01) <= ceiling for n in range(2, needed + 1)]
    assert fits == [False] * (needed - 2) + [True]


def test_a_metric_that_no_number_of_seeds_would_help_is_named():
    assert seeds_needed(Noise(1.4, 0.01), 0.01, {"n": 2, "accepted_n": 2}) is None


def test_more_seeds_are_advised_than_there_are():
    assert seeds_needed(Noise(1.0, 0.01), 100.0, {"n": 5, "accepted_n": 7}) == 6


# reported numbers


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
    (line,) = judgement["failed"]
    assert line.startswith(f"ce clt.accuracy.all: {verdict} the reported {value} (measured {measured:.2f}")
    said = "; two standard errors are 2.03, the tolerance is 0.01: more seeds)"
    assert line.endswith(said if verdict == "inconclusive" else f", tolerance {tolerance})")


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


def test_only_these_verdicts_pass():
    assert set(PASSING) == {"pass", "unreported", "not judged"}


# settings


def test_unchanged_settings_are_not_listed(manifest, spec, accepted, state_of, summary):
    one = summary()
    verdict = judge(manifest, accepted, spec.gate, spec.evaluate, state_of(one, accepted=accepted), one)
    assert verdict["settings"] == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"metrics": METRICS[1:2]}, f"gate.metrics: {METRICS[1:2]}, when accepted {METRICS[1:]}"),
        ({"primary": "glt.f1_of_averages"}, f"gate.primary: glt.f1_of_averages, when accepted {PRIMARY}"),
        ({"level": 0.5}, "gate.level: 0.5, when accepted 0.95"),
        ({"ceiling": 20.0}, "gate.ceiling: 20.0, when accepted 10.0"),
        ({"runs": ["ce"]}, "gate.runs: ['ce'], when accepted None"),
        ({"against": "nothing"}, "gate.against: nothing, when accepted accepted"),
    ],
)
def test_settings_that_changed_since_they_were_accepted_are_listed(judged, summary, change, line):
    assert judged(summary(), **{"ceiling": 10.0} | change)["settings"] == [line]


def test_another_number_of_seeds_is_listed(judged, summary):
    assert judged(summary(seeds=(0, 1)), ceiling=10.0)["settings"] == ["ce: 2 seeds, when accepted 3"]


@pytest.mark.parametrize(
    "block",
    [
        {"metrics": METRICS},
        {"primary": PRIMARY, "metrics": METRICS},
        {"primary": PRIMARY, "metrics": ["glt.f1_of_averages", "glt.f1_of_averages"]},
        {"primary": PRIMARY, "level": 1},
        {"primary": PRIMARY, "level": 0},
        {"primary": PRIMARY, "ceiling": 0},
    ],
)
def test_an_impossible_gate_is_refused(block):
    with pytest.raises(Refused):
        parse(Gate, block, "gate")


# files that are not what they should be


def test_an_accepted_file_that_was_edited_is_refused(manifest, spec, accepted, state_of, summary):
    accepted["runs"]["ce"]["mean"][PRIMARY] = 50.0
    with pytest.raises(Refused, match=r"conf/accepted/digits_glt\.json is not a baseline that ltpipe accept wrote"):
        judge(manifest, accepted, spec.gate, spec.evaluate, state_of(summary()), summary())


def test_accepted_bits_of_other_images_are_refused(judged, summary, accepted):
    correct = accepted["runs"]["ce"]["seeds"]["s0"]["correct"]
    correct["test_cbl"] = accepted["runs"]["ce"]["seeds"]["s1"]["correct"]["test_cbl"]
    with pytest.raises(Refused, match=r"ce\.s0: the bits of test_cbl do not give clt\.accuracy"):
        judged(summary())


@pytest.mark.parametrize("fact", ["seed", "data", "code", "recipe", "measured"])
def test_a_cell_of_another_state_is_refused(manifest, spec, accepted, state_of, summary, fact):
    one = summary()
    cells = [*one["cells"][:2], one["cells"][2] | {fact: "other"}]
    with pytest.raises(Refused, match=rf"digits_glt\.ce\.s2 is of another state: {fact} is other, not "):
        judge(manifest, accepted, spec.gate, spec.evaluate, state_of(one), one | {"cells": cells})


def test_a_manifest_of_other_data_than_the_cells_is_refused(judged, summary, manifest):
    with pytest.raises(Refused, match=r"the data of its cells are .*: draw it again"):
        judged(summary(), manifest=manifest.assign(row=manifest["row"][::-1].to_numpy()))


def test_a_run_with_another_recipe_than_the_accepted_one_is_listed(judged, summary, accepted):
    accepted["runs"]["ce"]["recipe"] = "0" * 12
    assert judged(summary(), ceiling=10.0)["settings"] == [
        "ce: another recipe (method, schedule or model) than when accepted"
    ]
    accepted["runs"]["ce"]["recipe"] = None
    assert judged(summary(), ceiling=10.0)["settings"] == []


def test_a_gate_against_nothing_does_not_look_at_the_bits_of_other_data(judged, summary, manifest, accepted):
    accepted["runs"]["ce"]["seeds"]["s0"]["correct"]["test_cbl"] = "AA=="
    assert judged(summary(), against="nothing")["passes"] is True


def test_seeds_that_no_two_runs_share_are_not_compared_together(judged, summary, cell, accept_cells):
    both = accept_cells([cell(run, seed) for run in ("ce", "logit_adjust") for seed in range(4)])
    verdict = judged(summary("ce", seeds=(0, 1)), summary("logit_adjust", seeds=(2, 3)), accepted=both)
    assert verdict["together"] is None
    json.dumps(verdict, allow_nan=False)


def test_accepted_and_its_number_of_seeds_are_those_that_were_compared(judged, summary, accepted):
    row = judged(summary(seeds=(0, 1)))["rows"][0]
    values = [accepted["runs"]["ce"]["seeds"][f"s{seed}"]["metrics"][PRIMARY] for seed in (0, 1)]
    assert (row["accepted"], row["accepted_n"]) == (pytest.approx(np.mean(values)), 2)
