"""The report shows every number, and the same numbers give the same bytes."""

import re

import pytest

from ltpipe.config.spec import Refused
from ltpipe.evaluation.claims import Claim, Claims, check_claims
from ltpipe.evaluation.judge import judge
from ltpipe.evaluation.report import render_markdown, report
from ltpipe.evaluation.reported import Reported
from ltpipe.evaluation.summary import summarise

RUNS = ("ce", "logit_adjust")
SEEDS = (0, 1, 2)
PAPER = Reported(value=91.25, metric="clt.accuracy.all", tolerance=4.0, source="table 2", why="other size", label="CE")
CLAIMS = Claims((Claim(better="logit_adjust", than="ce", metric="glt.accuracy.few", source="a paper"),))


@pytest.fixture(scope="module")
def cells(cell):
    """Cells of two runs; the second is far worse than what was accepted of both."""
    return {run: [cell(run, seed, wrong) for seed in SEEDS] for run, wrong in zip(RUNS, (0.1, 0.9), strict=True)}


@pytest.fixture(scope="module")
def judged(manifest, spec, state_of):
    """judged(accepted, summaries...): the verdict."""

    def make(accepted, *summaries, **settings):
        state, gate = state_of(*summaries, accepted=accepted), spec.gate.model_copy(update=settings)
        return judge(manifest, accepted, gate, spec.evaluate, state, *summaries)

    return make


@pytest.fixture(scope="module")
def verdict(cell, cells, judged, accept_cells):
    summaries = [
        summarise(paper, *(c.metrics for c in cells[run]))
        for run, paper in zip(RUNS, (PAPER, Reported(why="nobody reports it")), strict=True)
    ]
    return judged(accept_cells([cell(run, seed) for run in RUNS for seed in SEEDS]), *summaries)


@pytest.fixture(scope="module")
def shown(cells):
    """Details and logs in the order in which the graph hands them over."""
    every = [c for run in RUNS for c in cells[run]]
    return [*(c.details for c in every), *(c.log for c in every)]


@pytest.fixture(scope="module")
def written(verdict, validation, shown):
    """The report's files; drawn once, because figures take a second."""
    return report(verdict, validation[0], CLAIMS, *shown)


@pytest.fixture
def text(written):
    return written["report.md"].decode()


@pytest.fixture
def text_of(validation):
    """text_of(verdict): the text alone."""
    return lambda verdict: render_markdown(verdict, validation[0], [], ["groups.png"])


def rows(text, heading):
    """Cells of the first table under a heading, without its head."""
    table = text.split(f"## {heading}\n")[1].split("\n|", 1)[1].split("\n\n")[0]
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_the_title_says_that_the_gate_fails(text):
    assert text.startswith("# digits_glt: the gate FAILS\n")


def test_the_title_says_that_the_gate_passes(verdict, text_of):
    text = text_of(verdict | {"passes": True, "failed": []})
    assert text.startswith("# digits_glt: the gate passes\n")


def test_the_title_says_that_nothing_is_judged(judged, verdict, text_of):
    text = text_of(judged(None, *verdict["summaries"], against="nothing"))
    assert text.startswith("# digits_glt: the gate judges nothing (gate.against: nothing)\n")
    assert all(row[-1] == "not judged" for row in rows(text, "Gate"))


def test_the_state_that_was_judged_is_named(text, verdict):
    state = verdict["state"]
    data = verdict["summaries"][0]["data"][0]
    assert (
        f"\nState `{state['digest']}`: parameters `{state['parameters']}`, data `{data}`, accepted baseline "
        f"`{state['accepted']}`; the code of each run is in the table of runs.\n"
    ) in text


def test_changed_settings_and_retired_runs_are_lines(judged, verdict, cell, accept_cells, text_of):
    cells = [cell(run, seed) for run in RUNS for seed in SEEDS]
    accepted = accept_cells(cells, retired={"ride": "too slow"})
    text = text_of(judged(accepted, *verdict["summaries"], level=0.9))
    assert "\n* changed since accepted: gate.level: 0.9, when accepted 0.95\n" in text
    assert "\n* ride was retired: too slow\n" in text
    assert "changed since accepted" not in text_of(verdict)


def test_every_comparison_that_failed_is_a_line(verdict, text):
    assert len(verdict["failed"]) == 4
    for line in verdict["failed"]:
        assert f"* {line}\n" in text


def test_the_gate_table_has_every_number_of_every_comparison(verdict, text):
    expected = [
        [
            row["run"],
            row["metric"],
            "91.25" if (row["run"], row["metric"]) == ("ce", "clt.accuracy.all") else "-",
            f"{row['accepted']:.2f}",
            "3",
            f"{row['mean']:.2f}",
            f"{row['std']:.2f}",
            "3",
            f"{row['delta']:+.2f}",
            f"{row['margin']:.2f}",
            f"{row['sees']:.2f}",
            row["verdict"],
        ]
        for row in verdict["rows"]
    ]
    assert rows(text, "Gate") == expected
    assert {row[-1] for row in expected} == {"pass", "regressed"}


def test_an_incomparable_row_shows_its_reason_and_no_number_that_is_not_there(judged, verdict, text_of):
    text = text_of(judged(None, *verdict["summaries"]))
    assert text.startswith("# digits_glt: the gate has no accepted baseline yet\n")
    for row in rows(text, "Gate"):
        assert row[-1].startswith("incomparable: there is no accepted baseline yet")
        assert [row[column] for column in (3, 4, 8, 9, 10)] == ["-"] * 5
    assert "fails |" not in text


def test_all_comparisons_together_and_what_the_gate_sees_are_shown(text, verdict):
    together, power = verdict["together"], verdict["power"]
    assert (
        f"All comparisons together: {together['delta']:+.2f} accepted standard deviations on average, margin "
        f"{together['margin']:.2f}: regressed.\n"
    ) in text
    assert "whose glt.accuracy.all is worse in every run, with 3 other seeds" in text
    lines = [line.strip("| ").split(" | ") for line in text.split("| points worse | fails |\n")[1].splitlines()[1:6]]
    assert lines[0] == ["0", f"{100 * power['false_alarms']:.1f} %"]
    assert lines[1:] == [[f"{fall:g}", f"{100 * share:.0f} %"] for fall, share in power["caught"]]


def test_every_metric_of_every_run_is_shown_with_its_deviation(verdict, text):
    table = {key: cells for key, *cells in rows(text, "Every metric")}
    first, second = verdict["summaries"]
    assert set(table) == {key for key in first["metrics"] if not key.endswith(".n")}
    for key, cells in table.items():
        for cell, summary in zip(cells, (first, second), strict=True):
            expected = summary["metrics"][key]
            assert cell == f"{expected['mean']:.2f} ± {expected['std']:.2f}"


def test_every_run_is_shown_with_seeds_code_and_the_verdict_on_its_paper(text, cells):
    code = {run: cells[run][0].metrics["code"] for run in RUNS}
    assert rows(text, "Runs") == [
        ["ce", "CE", "0 1 2", code["ce"], "91.25 (clt.accuracy.all, table 2)", "pass", "other size"],
        ["logit_adjust", "-", "0 1 2", code["logit_adjust"], "-", "unreported", "nobody reports it"],
    ]


def test_every_claim_is_shown_with_difference_and_verdict(verdict, text):
    ((claim, metric, difference, error, n, answer, recipes, source),) = rows(text, "What the papers claim of the order")
    (expected,) = check_claims(CLAIMS, verdict["summaries"])
    assert (claim, metric, n, source) == ("logit_adjust > ce", "glt.accuracy.few", "3", "a paper")
    assert recipes == "equal"
    assert (difference, error) == (f"{expected['difference']:+.2f}", f"{expected['error']:.2f}")
    assert answer == expected["verdict"] == "does not hold"


def test_a_claim_says_how_the_recipes_of_its_runs_differ(verdict, validation):
    told = Claims((CLAIMS.root[0].model_copy(update={"recipes": "weight decay"}),))
    text = render_markdown(verdict, validation[0], check_claims(told, verdict["summaries"]), [])
    assert rows(text, "What the papers claim of the order")[0][6] == "weight decay"


def test_without_claims_the_report_has_no_section_on_claims(verdict, text_of):
    assert "claim" not in text_of(verdict)


def test_a_single_seed_has_no_deviation_to_show(cell, judged, accepted, text_of):
    text = text_of(judged(accepted, summarise(PAPER, cell("ce", 0).metrics)))
    assert all(row[6] == "-" for row in rows(text, "Gate"))
    assert all(row[1].endswith(" ± -") for row in rows(text, "Every metric"))


def test_the_size_of_the_data_and_their_validation_are_named(text, manifest, validation):
    checks = len(validation[0]["expectations"])
    assert f"\n{len(manifest)} manifest rows, {checks} of {checks} expectations hold.\n" in text


@pytest.mark.parametrize("fact", ["cell", "recipe", "code", "data"])
@pytest.mark.parametrize(("part", "what"), [(4, "the details"), (10, "the training log")])
def test_details_and_logs_of_another_cell_are_refused(verdict, validation, shown, part, what, fact):
    """Parts 4 and 10 are of logit_adjust, seed 1."""
    stale = shown[part].assign(**{fact: "other"}) if what == "the training log" else shown[part] | {fact: "other"}
    with pytest.raises(Refused, match=rf"{what} of digits_glt\.logit_adjust\.s1 is of another state: {fact} is other,"):
        report(verdict, validation[0], CLAIMS, *shown[:part], stale, *shown[part + 1 :])


def test_each_figure_is_a_png_and_is_shown(written, text):
    figures = set(written) - {"report.md"}
    assert figures == {"groups.png", "classes.png", "confusion.png", "reliability.png", "training.png"}
    assert set(re.findall(r"!\[.*?\]\((.*?)\)", text)) == figures
    for figure in figures:
        assert written[figure].startswith(b"\x89PNG\r\n\x1a\n")
        assert len(written[figure]) > 5000


def test_the_same_numbers_give_the_same_bytes(written, verdict, validation, shown):
    assert report(verdict, validation[0], CLAIMS, *shown) == written


def test_runs_of_different_protocols_and_a_run_that_trains_nothing_share_one_report(cell, judged, validation, written):
    glt, alt = cell("ce", 0), cell("balanced", 0)
    summaries = [summarise(PAPER, glt.metrics), summarise(Reported(why="nobody reports it"), alt.metrics)]
    verdict = judged(None, *summaries, against="nothing")
    empty = alt.log.iloc[:1].drop(columns=["loss", "val_accuracy"])
    files = report(verdict, validation[0], Claims(), glt.details, alt.details, glt.log, empty)
    table = {key: cells for key, *cells in rows(files["report.md"].decode(), "Every metric")}
    assert table["alt.accuracy.all"][0] == "-"
    assert table["glt.accuracy.all"][1] == "-"
    assert set(files) == set(written)
    assert all(files[name] != written[name] for name in files)


def test_a_validation_of_another_manifest_is_refused(verdict, validation, shown):
    other = validation[0] | {"manifest": "0" * 16}
    with pytest.raises(Refused, match="the validation is of manifest 0000000000000000, the cells are of "):
        report(verdict, other, CLAIMS, *shown)
