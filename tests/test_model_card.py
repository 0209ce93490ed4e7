"""The model card of a run: metadata that a hub reads, every number of the verdict, and limits that are true of it."""

import re

import pytest
import yaml

from ltpipe.evaluation.claims import Claims
from ltpipe.evaluation.judge import judge
from ltpipe.evaluation.report import report
from ltpipe.evaluation.report.model_card import escape
from ltpipe.evaluation.reported import Reported
from ltpipe.evaluation.summary import summarise

RUNS = ("ce", "logit_adjust")
SEEDS = (0, 1, 2)
REPORTED = Reported(why="nobody reports it")


@pytest.fixture(scope="module")
def files(cell, spec, state_of, accept_cells, manifest, images, validation):
    """files(wrong, seeds, classes, notice): the report's files; wrong: share of wrong predictions of logit_adjust."""

    def make(wrong=0.1, seeds=SEEDS, notice="the licence", accepted=True, classes=None, warnings=()):
        cells = {run: [cell(run, s, share) for s in seeds] for run, share in zip(RUNS, (0.1, wrong), strict=True)}
        summaries = [summarise(REPORTED, *(c.metrics for c in cells[run])) for run in RUNS]
        baseline = accept_cells([cell(run, s) for run in RUNS for s in SEEDS]) if accepted else None
        state = state_of(*summaries, accepted=baseline) | {"warnings": list(warnings)}
        verdict = judge(manifest, baseline, spec.gate, spec.evaluate, state, *summaries)
        every = [c for run in RUNS for c in cells[run]]
        tables = [c.predictions.copy() for c in every]
        for table, made in zip(tables, every, strict=True):
            facts = made.predictions.attrs["facts"]
            table.attrs = {"facts": facts | ({"classes": classes} if classes else {})}
        shown = [*(c.details for c in every), *(c.log for c in every), *tables, *[None] * len(every)]
        data = (spec.evaluate, manifest, images, baseline, notice)
        return verdict, report(verdict, validation[0], Claims(), *data, *shown)

    return make


@pytest.fixture(scope="module")
def failing(files):
    return files(wrong=0.9)


def parts(card: bytes) -> tuple[dict, list[str]]:
    """The metadata of a card, and the lines of its text."""
    _, metadata, text = card.decode().split("---\n", 2)
    return yaml.safe_load(metadata), text.strip().splitlines()


def section(lines: list[str], title: str) -> list[str]:
    start = lines.index(f"## {title}") + 1
    return lines[start : next((i for i in range(start, len(lines)) if lines[i].startswith("## ")), len(lines))]


def test_there_is_a_card_for_each_run_with_the_keys_of_the_hub(failing):
    _, written = failing
    assert {name for name in written if name.startswith("model_card")} == {f"model_card_{run}.md" for run in RUNS}
    metadata, _ = parts(written["model_card_ce.md"])
    assert {key: metadata[key] for key in ("license", "library_name", "pipeline_tag", "datasets", "metrics")} == {
        "license": "other",
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "datasets": ["digits_glt"],
        "metrics": ["accuracy", "recall", "f1"],
    }


def test_report_and_card_warn_of_what_the_pretraining_has_seen(files):
    _, written = files(warnings=["ce: pretrained on in1k, which holds images of this benchmark"])
    said = {name for name, content in written.items() if "pretrained on in1k" in content.decode("utf-8", "ignore")}
    assert said == {"report.html", "report.md", "model_card_ce.md"}


def test_the_model_index_has_the_means_of_the_verdict_by_protocol_and_group(failing):
    verdict, written = failing
    (index,) = parts(written["model_card_logit_adjust.md"])[0]["model-index"]
    assert index["name"] == "digits_glt.logit_adjust"
    assert [result["dataset"]["split"] for result in index["results"]] == ["test_cbl", "test_gbl"]
    found = {m["name"].split()[0]: m["value"] for result in index["results"] for m in result["metrics"]}
    assert {"glt.accuracy.all", "glt.accuracy.few", "clt.recall.many", "glt.macro_f1"} <= set(found)
    metrics = verdict["summaries"][1]["metrics"]
    assert found == {path: round(metrics[path]["mean"], 2) for path in found}


def test_the_first_line_says_that_the_gate_fails_and_each_reason_follows(failing):
    verdict, written = failing
    for run in RUNS:
        _, lines = parts(written[f"model_card_{run}.md"])
        assert lines[0] == f"# {escape(run)} of digits\\_glt: the gate FAILS"
        assert lines[2 : 2 + len(verdict["failed"])] == [f"* {escape(line)}" for line in verdict["failed"]]
        innocent = f"* No comparison of {escape(run)} alone is among these."
        assert (innocent in lines) == (run == "ce")


def test_the_first_line_says_that_the_gate_passes_or_has_nothing_to_compare_with(files):
    assert parts(files()[1]["model_card_ce.md"])[1][0] == "# ce of digits\\_glt: the gate passes"
    title = parts(files(accepted=False)[1]["model_card_ce.md"])[1][0]
    assert title == "# ce of digits\\_glt: the gate has no accepted baseline yet"


def test_the_results_have_mean_std_and_n_of_every_group_and_the_gate_s_answer(failing):
    verdict, written = failing
    lines = section(parts(written["model_card_logit_adjust.md"])[1], "Results")
    metrics = verdict["summaries"][1]["metrics"]
    for group in ("all", "many", "medium", "few"):
        value = metrics[f"glt.accuracy.{group}"]
        assert f"| glt.accuracy.{group} | {value['mean']:.2f} | {value['std']:.2f} | 3 |" in lines
    answers = [line for line in lines if line.endswith("| regressed |")]
    assert len(answers) == sum(r["run"] == "logit_adjust" and r["verdict"] == "regressed" for r in verdict["rows"]) > 0


def test_the_recipe_is_the_whole_one(failing, spec):
    block = re.search(r"```yaml\n(.*?)\n```", failing[1]["model_card_logit_adjust.md"].decode(), re.DOTALL)
    recipe = yaml.safe_load(block[1])
    assert recipe["run"]["method"] == "logit_adjust" and recipe["model"]["backbone"] == spec.model.backbone
    assert recipe["schedule"]["epochs"] == spec.schedule.epochs


def test_the_limits_are_in_words_and_of_these_numbers(failing):
    verdict, written = failing
    text = "\n".join(section(parts(written["model_card_logit_adjust.md"])[1], "Limits"))
    many, few = (verdict["summaries"][1]["metrics"][f"glt.accuracy.{group}"]["mean"] for group in ("many", "few"))
    assert f"glt: accuracy is {many:.2f} % on classes with many training images and {few:.2f} % on those" in text
    assert "* glt: the test split has 2,400 images, 240 of a class." in text
    assert "It knows its 10 classes and no other." in text
    assert "The validation images prefer ce, by more than two standard errors." in text


def test_a_choice_that_the_validation_does_not_carry_is_said(files):
    _, written = files(wrong=0.1)
    texts = [written[f"model_card_{run}.md"].decode() for run in RUNS]
    assert any(re.search(r"is the best of 2 on the validation images, but they do not separate it", t) for t in texts)
    assert any(re.search(r"prefer .*, but do not separate it from", t) for t in texts)


def test_one_seed_is_said_to_say_nothing_of_others(files):
    text = files(seeds=(0,))[1]["model_card_ce.md"].decode()
    assert "There is one model, of seed 0;" in text and "One seed was trained" in text
    assert re.search(r"\| glt\.accuracy\.all \| \d+\.\d\d \| - \| 1 \|", text)


NAMES = ["a|b", "*bold*", "<script>", "[x](y)", "line\nbreak", "`code`", "_u_", "--- ", "1. one", "# head"]


def test_names_and_the_notice_show_as_they_are(files):
    """As GitHub's markdown does; nothing of a name is a table's cell, a heading, a list, a link or HTML."""
    markdown = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    notice = "# Licence\n---\n<b>CC</b> | *not* bold\n- a list\n===\n"
    _, lines = parts(files(classes=NAMES, notice=notice)[1]["model_card_ce.md"])
    (classes,) = [line for line in lines if line.startswith("Classes: ")]
    tokens = markdown.MarkdownIt("gfm-like", {"linkify": False}).parse(
        "\n".join([classes, "", *section(lines, "Data")[-7:]])
    )
    kinds = {token.type for token in tokens}
    assert kinds == {"paragraph_open", "inline", "paragraph_close", "blockquote_open", "blockquote_close"}
    inline = [child for token in tokens for child in token.children or []]
    assert {child.type for child in inline} <= {"text", "softbreak", "text_special"}
    shown = "".join("\n" if child.type == "softbreak" else child.content for child in inline)
    assert "a|b, *bold*, <script>, [x](y), line break, `code`, _u_, ---, 1. one, # head." in shown
    assert "# Licence\n---\n<b>CC</b> | *not* bold\n- a list\n===" in shown


@pytest.mark.parametrize("text", NAMES)
def test_no_sign_of_a_name_ends_a_table_s_cell(text):
    assert not re.search(r"(?<!\\)[|`*_<\[]", escape(text)) and "\n" not in escape(text)
