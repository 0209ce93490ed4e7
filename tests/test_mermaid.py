"""Charts in a comment: any name of a class is a label, and none ends a string, a block or a table.

With LTPIPE_MERMAID, the path of mermaid's bundle (npm install mermaid; node_modules/mermaid/dist/mermaid.min.js), a
real browser draws them too.
"""

import json
import os
import re
import shutil
import subprocess
from urllib.parse import unquote

import numpy as np
import pytest

from ltpipe.evaluation.baseline import read_accepted
from ltpipe.evaluation.changes import Changed, by_class, by_group, first_runs
from ltpipe.evaluation.mermaid import WIDTH, Place, draw_bars_and_line, escape, label_all

# name -> what is written of it
SHOWN = {
    'a "quoted" name': "a \u201dquoted\u201d name",
    "[brackets] {curly} (round)": "[brackets] {curly} (round)",
    "two\nlines\r\nof\ttext": "two lines of text",
    "`back` ```ticks```": "\u2019back\u2019 \u2019\u2019\u2019ticks\u2019\u2019\u2019",
    "--> arrow --- rule": "--\u203a arrow --- rule",
    "emoji \N{FOX FACE} \N{FLAG IN HOLE}": "emoji \N{FOX FACE} \N{FLAG IN HOLE}",
    "%%{init: {}}%% 5% %%%": "% %{init: {}}% % 5% % % %",
    "<b>R&D</b> &amp; #35;": "\u2039b\u203aR+D\u2039/b\u203a +amp, #35,",
    "style: x#y; classDef: a#b;": "style: x#y, classDef: a#b,",
    "\u202eright to left\u202c \x00\x07": "right to left",
    "c'est | déjà \\n $x$ 漢字 العربية": "c'est | déjà \\n $x$ 漢字 العربية",
    "": "",
    "W" * 40: "W" * 40,
    "漢" * 40: "漢" * 40,
    "\N{FOX FACE}" * 40: "\N{FOX FACE}" * 40,
}
NAMES = list(SHOWN)
PLACES = [Place(name, 50.0 + k, 60.0 - k) for k, name in enumerate(NAMES)]


def chart(places=PLACES):
    return draw_bars_and_line("A title: of #1", "recall", places)


@pytest.mark.parametrize(("name", "shown"), SHOWN.items())
def test_a_name_is_one_line_of_harmless_signs(name, shown):
    assert escape(name) == shown


def test_labels_differ_and_are_short():
    long = "a very long name of a class that begins like"
    labels = label_all([long + " one", long + " two", long, "x", "x", "", "", "漢" * 40])
    assert len(set(labels)) == 8 and all(len(label) <= WIDTH + 4 for label in labels)
    assert labels[3:7] == ["x", "x (2)", "-", "- (2)"] and labels[7] == "漢" * 11 + "…"


def test_a_block_is_what_mermaid_s_grammar_asks_for():
    """One directive a line, strings between quotes, as many values as labels, and a block that ends once."""
    lines = chart()
    assert lines[0] == "```mermaid" and lines[-1] == "```" and sum("```" in line for line in lines) == 2
    assert lines[1:8].count("---") == 2 and not any("\n" in line for line in lines)
    kind, title, x, y, bar, line = lines[-7:-1]
    assert kind == "xychart-beta horizontal"
    assert re.fullmatch(r'  title "[^"]*"', title)
    labels = re.fullmatch(r'  x-axis \[("[^"]*"(?:, "[^"]*")*)\]', x)[1]
    assert len(re.findall(r'"[^"]*"', labels)) == len(NAMES)
    assert re.fullmatch(r'  y-axis "[^"]*" \d+ --> 100', y)
    for kind, values in (("bar", bar), ("line", line)):
        found = re.fullmatch(rf"  {kind} \[(\d+\.\d\d(?:, \d+\.\d\d)*)\]", values)[1]
        assert len(found.split(", ")) == len(NAMES)


def test_the_axis_says_where_it_begins_and_one_place_is_not_drawn():
    high = [Place("a", 95.0, 93.0), Place("b", 88.0, 90.0)]
    assert any(line.endswith('"recall in percent, from 80" 80 --> 100') for line in chart(high))
    assert any(line.endswith('"recall in percent" 0 --> 100') for line in chart([*high, Place("c", 3.0, 9.0)]))
    assert chart(high[:1]) == []


@pytest.fixture
def old(accepted):
    return read_accepted(accepted, "digits_glt")


def test_groups_of_runs_that_changed_are_found_the_largest_change_first(old):
    mean = old.runs["ce"].mean
    same = {path: {"mean": value} for path, value in mean.items()}
    fell = same | {"glt.accuracy.few": {"mean": mean["glt.accuracy.few"] - 9}}
    more = old.model_copy(update={"runs": dict.fromkeys(("same", "fell", "other"), old.runs["ce"])})
    verdict = {
        "primary": "glt.accuracy.all",
        "rows": [{"run": run, "verdict": "pass"} for run in ("same", "fell")]
        + [{"run": "other", "verdict": "not judged"}],
        "summaries": [{"run": run, "metrics": m} for run, m in (("same", same), ("fell", fell), ("other", fell))],
    }
    found = by_group(verdict, more)
    assert list(found) == ["fell"] and [row.name for row in found["fell"]][-1] == "glt few"
    assert found["fell"][-1].new - found["fell"][-1].old == pytest.approx(-9)
    assert list(by_group(verdict, more, "other")) == ["fell", "other"]
    assert first_runs(["a", "b", "c"], "c", ["b", "x"], 2) == ["c", "b"]


def test_the_ten_classes_that_changed_most_are_those_of_the_accepted_answers(old, cell, manifest):
    tables = [cell("ce", seed).details["protocols"]["glt"]["classes"] for seed in range(3)]
    before = {row[0]["label"]: float(np.mean([r["recall"] for r in row])) for row in zip(*tables, strict=True)}
    new = {str(label): value - (20 if label == 4 else label == 7) for label, value in before.items()}
    classes = {"splits": {"glt": "test_gbl"}, "names": {str(k): f"class {k}" for k in range(10)}}
    rows = by_class(classes | {"recall": {"ce": {"glt": new}}}, old, manifest, "glt", ["ce", "unknown"])
    assert [row.name for row in rows] == ["class 4", "class 7"]
    assert rows[0] == Changed("ce", "class 4", pytest.approx(before[4]), pytest.approx(before[4] - 20))


PAGE = """<meta charset="utf-8"><div id="o"></div><script src="BUNDLE"></script><script>
mermaid.initialize({startOnLoad: false, theme: "THEME", securityLevel: "strict"});
(async () => { let said = [];
for (const [i, text] of TEXTS.entries()) try { const made = await mermaid.render("g" + i, text);
const place = document.getElementById("o").appendChild(document.createElement("div")); place.innerHTML = made.svg;
said.push([...place.querySelectorAll("text")].map(t => t.textContent)); } catch (error) { said.push(String(error)); }
document.body.dataset.said = encodeURIComponent(JSON.stringify(said)); })();</script>"""


@pytest.mark.parametrize("theme", ["default", "dark"])
def test_mermaid_draws_every_name(tmp_path, theme):
    bundle = os.environ.get("LTPIPE_MERMAID")
    if not bundle or shutil.which("chromium") is None:
        pytest.skip("LTPIPE_MERMAID does not name mermaid's bundle (npm install mermaid), or there is no chromium")
    texts = ["\n".join(chart()[1:-1])]
    page = PAGE.replace("TEXTS", json.dumps(texts).replace("</", "<\\/")).replace("THEME", theme)
    (tmp_path / "page.html").write_text(page.replace("BUNDLE", f"file://{bundle}"))
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom"]
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=300, env=environment
    )
    said = json.loads(unquote(re.search(r'data-said="([^"]+)"', done.stdout)[1]))
    wanted = set(label_all(NAMES))
    (words,) = said
    assert isinstance(words, list), words
    assert wanted | {"A title: of #1 (bars: here, line: base)"} <= set(words), wanted - set(words)


def test_a_label_that_a_name_has_already_is_not_given_twice():
    labels = label_all(["a (2)", "a", "a"])
    assert len(set(labels)) == 3, labels
