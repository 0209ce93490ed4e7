"""Claims of papers about the order of methods, checked against hand-made summaries."""

import pytest

from ltpipe.evaluation.claims import Claims, check_claims

CLAIM = {"better": "ifl", "than": "ce", "metric": "glt.accuracy.all", "source": "a paper"}


def summary(run: str, values: list[float], seeds: list[int]) -> dict:
    return {"run": run, "seeds": seeds, "metrics": {"glt.accuracy.all": {"values": values}}}


def row(better: list[float], than: list[float], seeds: tuple[list[int], list[int]] = ([0, 1, 2], [0, 1, 2])) -> dict:
    summaries = [summary("ifl", better, seeds[0]), summary("ce", than, seeds[1])]
    return check_claims(Claims((CLAIM,)), summaries)[0]


def test_a_difference_is_paired_by_seed_and_has_its_standard_error():
    result = row([82.0, 83.0, 84.0], [80.0, 80.0, 80.0])
    assert result["n"] == 3 and result["difference"] == pytest.approx(3.0)
    assert result["error"] == pytest.approx(1 / 3**0.5)
    assert result["verdict"] == "holds"


def test_a_difference_within_two_standard_errors_is_inconclusive():
    assert row([82.0, 79.0, 80.5], [80.0, 80.0, 80.0])["verdict"] == "inconclusive"


def test_a_difference_the_other_way_does_not_hold():
    assert row([78.0, 77.0, 78.5], [80.0, 80.0, 80.0])["verdict"] == "does not hold"


def test_only_seeds_that_both_runs_have_are_compared():
    result = row([82.0, 83.0], [70.0, 80.0, 81.0], ([1, 2], [0, 1, 2]))
    assert result["n"] == 2 and result["difference"] == pytest.approx(2.0)


def test_one_common_seed_is_never_conclusive():
    result = row([99.0], [1.0, 1.0], ([0], [0, 1]))
    assert result["verdict"] == "inconclusive" and result["error"] is None


def test_a_run_that_was_not_measured_is_said_to_be_missing():
    assert check_claims(Claims((CLAIM,)), [summary("ce", [80.0], [0])])[0]["verdict"] == "not measured"


def test_no_claims_make_no_rows():
    assert check_claims(Claims(), [summary("ce", [80.0], [0])]) == []
