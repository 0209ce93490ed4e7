"""The report shows every number, needs no network, and the same numbers give the same bytes."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from dvc.fs import LocalFileSystem
from dvc.ignore import DvcIgnoreFilter

from ltpipe.config.spec import Refused
from ltpipe.evaluation.baseline import read_accepted
from ltpipe.evaluation.claims import Claim, Claims, check_claims
from ltpipe.evaluation.headline import headlines
from ltpipe.evaluation.judge import judge
from ltpipe.evaluation.report import report
from ltpipe.evaluation.report.cells import group_cells
from ltpipe.evaluation.report.charts import curve, pool
from ltpipe.evaluation.report.classes import accepted_recall
from ltpipe.evaluation.report.recommend import Score, choose, contenders, is_clear, recommend
from ltpipe.evaluation.report.tables import Grid
from ltpipe.evaluation.report.text import render_markdown
from ltpipe.evaluation.reported import Reported
from ltpipe.evaluation.summary import summarise

ROOT = Path(__file__).parents[1]
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
def baseline(cell, accept_cells):
    return accept_cells([cell(run, seed) for run in RUNS for seed in SEEDS])


@pytest.fixture(scope="module")
def verdict(cells, judged, baseline):
    summaries = [
        summarise(paper, *(c.metrics for c in cells[run]))
        for run, paper in zip(RUNS, (PAPER, Reported(why="nobody reports it")), strict=True)
    ]
    return judged(baseline, *summaries)


def parts(*cells):
    """Details, logs, predictions and costs in the order in which the graph hands them over."""
    return [*(c.details for c in cells), *(c.log for c in cells), *(c.predictions for c in cells), *map(cost, cells)]


def cost(cell, **changed):
    """What the cell's training cost: another time for each seed."""
    seed = cell.metrics["seed"]
    spent = {"images": 1000, "stepping": 2.0 + seed, "seconds": 100.0 + 60 * seed, "host_bytes": 500_000_000}
    where = {"device_bytes": None, "device": "a processor", "threads": 1, "precision": "fp32"}
    return {**spent, **where, "checkpoint": cell.metrics["checkpoint"]} | changed


@pytest.fixture(scope="module")
def shown(cells):
    return parts(*(c for run in RUNS for c in cells[run]))


@pytest.fixture(scope="module")
def make(validation, spec, manifest, images, baseline):
    """make(verdict, shown...): the report's files; a keyword replaces another input."""

    def make(verdict, *shown, claims=CLAIMS, validation=validation[0], accepted=baseline, **other):
        data = {"manifest": manifest, "images": images} | other
        return report(verdict, validation, claims, spec.evaluate, *data.values(), accepted, "the licence", *shown)

    return make


@pytest.fixture(scope="module")
def written(verdict, shown, make):
    """The report's files; drawn once, because figures take seconds."""
    return make(verdict, *shown)


@pytest.fixture
def text(written):
    return written["report.md"].decode()


@pytest.fixture(scope="module")
def page(written):
    """The page as a tree: it is well-formed XML too."""
    return ElementTree.fromstring(written["report.html"])


def said(node):
    """The words of a node, with single spaces."""
    return " ".join("".join(node.itertext()).split())


def grid(page, head):
    """The rows of the page's table whose head begins so."""
    for table in page.iter("table"):
        if [said(th) for th in table.iter("th")][: len(head)] == head:
            return [[said(td) for td in tr.iter("td")] for tr in table.find("tbody")]
    raise AssertionError(f"no table {head}")


@pytest.fixture
def text_of(validation):
    """text_of(verdict): the text alone."""
    return lambda verdict: render_markdown(verdict, validation[0], ["groups.png"])


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
        f"`{state['accepted']}`.\n"
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
            f"{row['delta']:+.2f}".replace("-0.00", "+0.00"),
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


def test_every_metric_of_every_run_is_on_the_page_with_its_deviation(verdict, page):
    table = {key: cells for key, _, *cells in grid(page, ["metric", "better"])}
    first, second = verdict["summaries"]
    assert set(table) == {key for key in first["metrics"] if not key.endswith(".n")}
    for key, cells in table.items():
        for cell, summary in zip(cells, (first, second), strict=True):
            expected = summary["metrics"][key]
            assert cell == f"{expected['mean']:.2f} ± {expected['std']:.2f}"


def test_every_run_is_on_the_page_with_seeds_code_and_the_verdict_on_its_paper(page, cells):
    code = {run: cells[run][0].metrics["code"] for run in RUNS}
    assert grid(page, ["run", "label"]) == [
        ["ce", "CE", "0 1 2", code["ce"], "91.25 (clt.accuracy.all, table 2)", "pass", "other size"],
        ["logit_adjust", "-", "0 1 2", code["logit_adjust"], "-", "unreported", "nobody reports it"],
    ]


def test_every_claim_is_on_the_page_with_difference_and_verdict(verdict, page):
    ((claim, metric, difference, error, n, answer, recipes, source),) = grid(page, ["claim"])
    (expected,) = check_claims(CLAIMS, verdict["summaries"])
    assert (claim, metric, n, source) == ("logit_adjust > ce", "glt.accuracy.few", "3", "a paper")
    assert recipes == "equal"
    assert (difference, error) == (f"{expected['difference']:+.2f}", f"{expected['error']:.2f}")
    assert answer == expected["verdict"] == "does not hold"


def test_a_single_seed_has_no_deviation_to_show(cell, judged, accepted, text_of):
    text = text_of(judged(accepted, summarise(PAPER, cell("ce", 0).metrics)))
    assert all(row[6] == "-" for row in rows(text, "Gate"))


def test_the_size_of_the_data_and_their_validation_are_named(text, manifest, validation):
    checks = len(validation[0]["expectations"])
    assert f"\n{len(manifest)} manifest rows, {checks} of {checks} expectations hold.\n" in text


@pytest.mark.parametrize("fact", ["cell", "recipe", "code", "data"])
@pytest.mark.parametrize(
    ("part", "what"), [(4, "the details"), (10, "the training log"), (16, "the table of predictions")]
)
def test_parts_of_another_cell_are_refused(verdict, make, shown, part, what, fact):
    """Parts 4, 10 and 16 are of logit_adjust, seed 1."""
    if what == "the details":
        stale = shown[part] | {fact: "other"}
    elif what == "the training log":
        stale = shown[part].assign(**{fact: "other"})
    else:
        stale = shown[part].copy()
        stale.attrs = {"facts": shown[part].attrs["facts"] | {fact: "other"}}
    with pytest.raises(Refused, match=rf"{what} of digits_glt\.logit_adjust\.s1 is of another state: {fact} is other,"):
        make(verdict, *shown[:part], stale, *shown[part + 1 :])


def test_each_figure_of_the_text_is_a_png(written, text):
    figures = {name for name in written if name.endswith(".png")}
    assert figures == {"groups.png", "classes.png"}
    assert set(re.findall(r"!\[.*?\]\((.*?)\)", text)) == figures
    for figure in figures:
        assert written[figure].startswith(b"\x89PNG\r\n\x1a\n")
        assert len(written[figure]) > 5000


def test_the_text_is_short_and_names_the_page_and_the_cards(text):
    assert "Model cards: `model_card_ce.md`, `model_card_logit_adjust.md`.\n" in text
    assert "report.html" in text and "## Every metric" not in text
    assert len(text.splitlines()) < 70


def test_the_same_numbers_give_the_same_bytes(written, verdict, make, shown):
    assert make(verdict, *shown) == written


def test_runs_of_different_protocols_and_a_run_that_trains_nothing_share_one_report(cell, judged, make):
    glt, alt = cell("ce", 0), cell("balanced", 0)
    summaries = [summarise(PAPER, glt.metrics), summarise(Reported(why="nobody reports it"), alt.metrics)]
    verdict = judged(None, *summaries, against="nothing")
    empty = alt.log.iloc[:1].drop(columns=["loss", "val_accuracy"])
    shown = parts(glt, alt._replace(log=empty))
    page = ElementTree.fromstring(make(verdict, *shown, claims=Claims(), accepted=None)["report.html"])
    assert {run: values for run, _, *values in grid(page, ["run", "n"])}["balanced"][:2] == ["-", "-"]
    assert "judges nothing" in said(page.find(".//h1"))


def test_a_validation_of_another_manifest_is_refused(verdict, make, validation, shown):
    other = validation[0] | {"manifest": "0" * 16}
    with pytest.raises(Refused, match="the validation is of manifest 0000000000000000, the cells are of "):
        make(verdict, *shown, validation=other)


def test_the_page_begins_with_the_verdict_and_every_reason_to_fail(page, verdict):
    first = page.find("body/main")[0]
    assert said(first.find("h1")) == "digits_glt: the gate FAILS" and first.get("class") == "verdict bad"
    assert [said(line) for line in first.iter("li")] == verdict["failed"]


def test_the_headline_table_has_no_column_without_a_value(cell, judged, make):
    """No run reports a number, so there is no column `reported`; a verdict has no reason here either."""
    made = cell("ce", 0)
    verdict = judged(None, summarise(Reported(why="a test"), made.metrics), against="nothing")
    page = ElementTree.fromstring(make(verdict, *parts(made), accepted=None)["report.html"])
    (head,) = [h for h in ([said(th) for th in t.iter("th")] for t in page.iter("table")) if h[:2] == ["run", "metric"]]
    assert "reported" not in head and "measured" in head and head[-1] in ("verdict", "reason")


def test_columns_of_numbers_are_known():
    rows = [
        ["ce", "81.20 ± 1.10", "-", "1 2", "few"],
        ["x", "+1,250", "3.0 min", "2", "-"],
        ["y", "25 %", "-", "-", "-"],
    ]
    assert Grid(["run", "a", "b", "seeds", "c"], rows).numeric == [False, True, True, False, False]


def test_the_headline_table_has_every_number_and_what_fails_is_on_top(page, verdict):
    table = grid(page, ["run", "metric", "reported"])
    assert len(table) == len(verdict["rows"])
    kinds = [row[-1] for row in table]
    assert kinds == sorted(kinds, key=lambda kind: kind == "pass") and kinds[0] == "regressed"
    for row in verdict["rows"]:
        numbers = [f"{row[key]:.2f}" for key in ("accepted", "mean", "std", "margin", "sees")]
        (line,) = [line for line in table if line[:2] == [row["run"], row["metric"]]]
        assert [line[column] for column in (3, 5, 7, 9, 10)] == numbers and line[4] == line[6] == "3"


def test_the_page_asks_for_nothing_from_a_network(page):
    addresses = [node.get(key) for node in page.iter() for key in ("src", "href") if node.get(key)]
    assert len(addresses) > 20
    cards = {f"model_card_{run}.md" for run in RUNS}
    assert {address.split(",")[0].split(";")[0] for address in addresses if address[0] != "#"} - cards == {
        "data:",
        "data:image/svg+xml",
        "data:image/png",
    }
    assert not list(page.iter("script")) and "url(" not in page.find("head/style").text


def test_every_link_leads_somewhere_also_in_a_copy_of_the_folder_and_wide_tables_are_folded(page, written, tmp_path):
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    places = {node.get("id") for node in page.iter()}
    addresses = {a.get("href") for a in page.iter("a")}
    assert {a[1:] for a in addresses if a.startswith("#")} <= places
    files = {a for a in addresses if not a.startswith("#")}
    assert files == {f"model_card_{run}.md" for run in RUNS} and all((tmp_path / file).is_file() for file in files)
    for file in files:  # and back
        card = (tmp_path / file).read_text()
        links = re.findall(r"\]\(([^)]+)\)", card)
        assert links == ["report.html"] and all((tmp_path / link).is_file() for link in links)
    folded = {said(d.find("summary")) for d in page.iter("details")}
    assert any(line.startswith("Every metric (") for line in folded) and "Runs" in folded


def test_the_model_is_recommended_by_validation_and_not_by_the_test_set(verdict, cells, manifest):
    """In validation the second run is made perfect; on the test images it stays far worse."""
    spoilt = [c.predictions.copy() for c in cells["logit_adjust"]]
    for table, made in zip(spoilt, cells["logit_adjust"], strict=True):
        table.loc[table["split"] == "val", "predicted"] = table["label"]
        table.attrs = made.predictions.attrs
    every = [c for run in RUNS for c in cells[run]]
    details = [c.details for c in every]
    tables = [*(c.predictions for c in cells["ce"]), *spoilt]
    runs = group_cells(details, [c.log for c in every], tables, [None] * len(every))
    advice = recommend(verdict, runs, headlines(details))
    assert advice.selected and advice.run == "logit_adjust" and advice.scores["logit_adjust"].mean == 100
    assert advice.sentences[0].startswith("Recommended: logit_adjust.")
    assert "place 2 of 2" in advice.sentences[2] and "worse than accepted" in advice.sentences[3]
    assert not any("too good" in line for line in advice.sentences)
    for table in tables[len(cells["ce"]) :]:
        facts = table.attrs["facts"]
        table.attrs = {"facts": facts | {"method": {"tau": 0.7, "tau_macro_recall": 1.0}}}
    advice = recommend(verdict, group_cells(details, [c.log for c in every], tables, [None] * 6), headlines(details))
    assert advice.run == "ce", "its tau was chosen on these images, so that it wins on them says nothing"
    assert any("logit_adjust chose a parameter on these very images" in line for line in advice.sentences)
    for table in tables[len(cells["ce"]) :]:
        facts = table.attrs["facts"]
        table.attrs = {"facts": facts | {"method": {"l2": 0.1, "l2_macro_recall": 1.0}}}
    advice = recommend(verdict, group_cells(details, [c.log for c in every], tables, [None] * 6), headlines(details))
    assert advice.run == "ce" and advice.fitted == ["logit_adjust"]
    none = [pd.DataFrame(t[t["split"] != "val"]) for t in tables]
    advice = recommend(verdict, group_cells(details, [c.log for c in every], none, [None] * 6), headlines(details))
    assert not advice.selected and advice.run == "ce"
    assert advice.sentences[0].startswith("No model is recommended") and "does not select" in advice.sentences[1]


def test_of_runs_that_validation_does_not_separate_the_one_that_is_best_on_the_few_is_taken():
    scores = {
        "ce": Score({0: 52.0, 1: 50.0, 2: 51.5}, 100, few=0.0),
        "adjusted": Score({0: 50.0, 1: 51.0, 2: 51.5}, 100, few=20.0),
        "worse": Score({0: 30.0, 1: 31.0, 2: 32.0}, 100, few=60.0),
    }
    assert contenders(scores) == ["ce", "adjusted"] and choose(scores) == "adjusted"
    alone = {run: Score({0: score.by_seed[0]}, 100, score.few) for run, score in scores.items()}
    assert choose(alone) == "ce", "one seed separates nothing: the few must not choose among all runs"
    without = {run: score._replace(few=None) for run, score in scores.items()}
    assert choose(without) == "ce"


def test_runs_that_are_equal_over_seeds_have_the_error_of_the_images():
    """A convex loss gives one model for every seed: 80.05 against 80.00 % of 100 images says nothing."""
    first, second = Score({0: 80.05, 1: 80.05}, 100, 40.0), Score({0: 80.0, 1: 80.0}, 100, 70.0)
    assert not is_clear(first, second) and choose({"first": first, "second": second}) == "second"
    assert is_clear(Score({0: 95.0, 1: 95.0}, 100), second)


def test_classes_that_the_recommended_run_never_recognises_are_named(verdict, cells):
    every = [c for run in RUNS for c in cells[run]]
    details = [json.loads(json.dumps(c.details)) for c in every]
    for detail in details:
        for protocol in detail["protocols"].values():
            protocol["classes"][3]["recall"] = 0.0
    runs = group_cells(details, [c.log for c in every], [c.predictions for c in every], [None] * len(every))
    advice = recommend(verdict, runs, headlines(details))
    assert "No test image of these classes is recognised, with any seed: 3." in advice.sentences
    assert advice.model == f"06_models/digits_glt/{advice.run}/s{advice.model.split('/s')[1][0]}/model.onnx"


def test_the_accepted_recall_of_each_class_is_that_of_the_accepted_cells(baseline, cell, manifest):
    known = read_accepted(baseline, "digits_glt").runs["ce"]
    found = accepted_recall(known, manifest[manifest["split"] == "test_gbl"], "test_gbl")
    tables = [cell("ce", seed).details["protocols"]["glt"]["classes"] for seed in SEEDS]
    assert found == pytest.approx(
        {row[0]["label"]: sum(r["recall"] for r in row) / 3 for row in zip(*tables, strict=True)}
    )


def test_the_page_shows_classes_that_fell_and_mistakes_with_pictures(page, cells):
    changes = grid(page, ["run", "class", "group"])
    assert {row[0] for row in changes} == {"logit_adjust"}  # ce is as it was accepted
    assert all(float(row[-1]) < -50 for row in changes) and len(changes) == 10
    assert "10 fell" in said(page)
    pixels = [img for img in page.iter("img") if img.get("class") == "pixels"]
    assert len(pixels) > 12 and all(img.get("src").startswith("data:image/png") for img in pixels)


def test_markup_in_the_name_of_a_class_is_text(verdict, shown, make):
    evil = "<script>alert('$1')</script>"
    spoilt = [{**d, "classes": [evil, *d["classes"][1:]]} for d in shown[:6]]
    for detail in spoilt:
        detail["protocols"] = {
            name: p | {"classes": [row | {"class": evil} if row["label"] == 0 else row for row in p["classes"]]}
            for name, p in detail["protocols"].items()
        }
    html = make(verdict, *spoilt, *shown[6:])["report.html"].decode()
    assert "<script" not in html and "&lt;script&gt;" in html


def test_a_group_without_images_is_absent(cell, judged, make):
    """Without the group few in metrics, details and predictions the page has no column of it."""
    made = cell("ce", 0)
    glt = {"glt": made.metrics["protocols"]["glt"]}
    metrics = made.metrics | {
        "protocols": {p: {m: _without_few(v) for m, v in values.items()} for p, values in glt.items()}
    }
    verdict = judged(
        None, summarise(PAPER.model_copy(update={"metric": "glt.accuracy.all"}), metrics), against="nothing"
    )
    details = made.details | {"protocols": {"glt": made.details["protocols"]["glt"]}}
    page = ElementTree.fromstring(make(verdict, *parts(made._replace(details=details)))["report.html"])
    heads = [[said(th) for th in table.iter("th")] for table in page.iter("table")]
    assert ["run", "all", "many", "medium", "worst_class"] in heads
    alts = [img.get("alt") for img in page.iter("img")]
    assert "glt: accuracy of all, many, medium, mean and standard deviation over seeds" in alts


def _without_few(value):
    return {part: v for part, v in value.items() if part != "few"} if isinstance(value, dict) else value


def test_many_classes_are_averaged_along_the_line_and_curves_keep_common_epochs(cells):
    x, y = pool(pd.Series(range(100, 0, -1)).to_numpy(), pd.Series(range(100)).to_numpy(), 10)
    assert x.tolist() == [5.5 + 10 * k for k in range(10)] and y[0] > y[-1] and len(y) == 10
    logs = [c.log for c in cells["ce"]]
    epochs, values = curve([*logs[:2], logs[2].iloc[1:]], "loss")
    assert epochs.tolist() == [1] and values.tolist() == [[1.0], [1.0], [1.0]]


def test_the_cost_of_each_run_is_on_the_page_and_in_its_data(page, written):
    """Seeds 0, 1, 2: 1000 images in 2, 3, 4 s of epochs, and 100, 160, 220 s in all."""
    row = ["3", "361 ± 127", "2.7 ± 1.0 min", "500 ± 0 MB", "-", "1", "fp32", "a processor"]
    assert [node.get("data") for node in page.iter("object")] == ["cost.html"]
    inside = ElementTree.fromstring(written["cost.html"])
    assert grid(inside, ["run", "n", "images/s"]) == [[run, *row] for run in RUNS]
    found = json.loads(written["cost.json"])["ce"]
    assert found["n"] == 3 and found["seconds"] == {"mean": 160.0, "std": 60.0} and found["device_bytes"] is None
    assert found["images_per_second"]["mean"] == pytest.approx((500 + 1000 / 3 + 250) / 3)
    assert "Times of a busy machine are not comparable" in said(inside)


def test_a_time_changes_nothing_that_the_ledger_knows(verdict, shown, make, written):
    """Only files that .dvcignore names: dvc.lock of a fresh clone stays as it is."""
    slower = make(verdict, *shown[:18], *({**cost, "seconds": 9e9, "images": 7} for cost in shown[18:]))
    changed = {name for name in written if written[name] != slower[name]}
    assert changed == {"cost.html", "cost.json"} and set(slower) == set(written)
    ignored = DvcIgnoreFilter(LocalFileSystem(url=str(ROOT)), str(ROOT))
    folder = ROOT / "data/08_reporting/digits_glt/report"
    assert {name for name in written if ignored.is_ignored_file(str(folder / name))} == changed


def test_what_nobody_recorded_is_a_dash_and_never_zero(verdict, shown, make, cells):
    """ce: nothing, an empty record, and one of another checkpoint. logit_adjust: trained nothing; one is missing."""
    first, second = cells["ce"], cells["logit_adjust"]
    unknown = [None, {}, cost(first[2], checkpoint="0" * 16)]
    short = [cost(cell, images=0, stepping=0.0, seconds=0.25, host_bytes=None) for cell in second[:2]]
    written = make(verdict, *shown[:18], *unknown, *short, None)
    page = ElementTree.fromstring(written["cost.html"])
    assert grid(page, ["run", "n", "images/s"]) == [
        ["ce", "0 of 3", *["-"] * 7],
        ["logit_adjust", "2 of 3", "-", "0.2 ± 0.0 s", "-", "-", "1", "fp32", "a processor"],
    ]
    assert json.loads(written["cost.json"])["ce"]["seconds"] is None


def test_the_data_of_classes_are_the_means_that_the_page_shows(written, verdict, cells):
    data = json.loads(written["classes.json"])
    assert data["state"] == verdict["state"]["digest"] and data["recommended"] == "ce"
    rows = [c.details["protocols"]["glt"]["classes"][3]["recall"] for c in cells["ce"]]
    assert data["recall"]["ce"]["glt"]["3"] == pytest.approx(sum(rows) / 3, abs=1e-4)
    assert data["splits"]["glt"] == "test_gbl" and data["names"]["3"] == "3"


PROBE = """<script>addEventListener("load", () => { const wide = document.documentElement.scrollWidth > innerWidth;
const failed = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;
const back = getComputedStyle(document.body).backgroundColor;
parent.document.body.dataset.probe = [innerWidth, wide, failed, back].join("|"); });</script></body>"""


def browse(page, width, dark, tmp_path):
    """What a real browser says of the page: its width, overflow, pictures that failed, background; and its console."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("needs Debian's package chromium")
    # a frame of that width: a headless window is never narrower than 500 pixels
    inner, outer = tmp_path / "inner.html", tmp_path / "outer.html"
    opened = page.replace("<details>", '<details open="open">')
    inner.write_text(opened.replace("</body>", PROBE))
    outer.write_text(
        '<head><meta name="color-scheme" content="light dark"></head><body>'
        f'<iframe src="inner.html" width="{width}" height="900" style="border:0"></iframe></body>'
    )
    command = [
        *(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,1000", "--enable-logging=stderr", "--v=0"),
        *(f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=5000", "--dump-dom"),
    ]
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run([*command, outer.as_uri()], capture_output=True, text=True, timeout=300, env=environment)
    found = re.search(r'data-probe="([^"]+)"', done.stdout)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return found.group(1).split("|"), console


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_the_whole_page_without_overflow_and_errors(written, tmp_path, width, dark):
    (tmp_path / "cost.html").write_bytes(written["cost.html"])
    (shown, wide, failed, back), console = browse(written["report.html"].decode(), width, dark, tmp_path)
    assert (shown, wide, failed, console) == (str(width), "false", "0", [])
    assert back == ("rgb(23, 24, 26)" if dark else "rgb(255, 255, 255)")


def test_the_browser_notices_what_is_too_wide(tmp_path):
    page = '<html><body><div style="width:900px">wide</div><img src="data:image/png;base64,eA=="/></body></html>'
    (_, wide, failed, _), _ = browse(page, 400, False, tmp_path)
    assert (wide, failed) == ("true", "1")
