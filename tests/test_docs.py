"""Generated pages are current; numbers and commands of the others are real; the site is built and needs no network."""

import importlib.util
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from copied_project import BIN, call, copy_project
from documented import ELSEWHERE, FENCE, NOT_RUN, STORY, commands, pages

from ltpipe.benchmark import load
from ltpipe.config.spec import load_item, parse
from ltpipe.evaluation.comparison import Column, find_power
from ltpipe.pages import methods as methods_page
from ltpipe.pages.options import option_table
from ltpipe.pipeline_registry import STAGES
from ltpipe.recipe.run import Run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
WITH_COMMANDS = (".md", ".py", ".yml", ".toml", "")
RESULTS = ROOT / "benchmarks/results"


every_method = pytest.mark.parametrize("module", methods_page.modules(), ids=methods_page.name_of)
SECTIONS = (
    "How to use it",
    "Suggested values",
    "Options",
    "Where the authors' code differs",
    "Cost",
    "Attribution",
)


def test_methods_page_is_what_the_modules_say():
    assert (ROOT / "docs/methods.md").read_text() == methods_page.render_methods(ROOT)


@every_method
def test_a_module_s_docstring_has_every_part(module):
    parts = methods_page.read_parts(module.__doc__)
    assert not [label for label in methods_page.REQUIRED if not parts.get(label)]
    assert re.search(r"(19|20)\d\d|Paper: none", parts["Headline"]), "the headline names no paper"


@every_method
def test_a_card_has_every_section_in_order(module):
    card = methods_page.card(module, {})
    assert re.findall(r"^\*\*(.*)\*\*$", card, re.MULTILINE) == list(SECTIONS)
    assert methods_page.NOT_STATED not in card


@every_method
def test_every_option_is_described(module):
    assert all(field.description for field in module.Config.model_fields.values())
    assert not [row for row in option_table(module.Config) if row.endswith("| - |")]


@every_method
def test_the_runs_of_a_card_are_valid(module):
    """They parse as runs, start from a run that the card shows, and name the base if the method has one."""
    runs = yaml.safe_load(methods_page.usage(module))["runs"]
    for name, row in runs.items():
        run = parse(Run, row["train"], name)
        assert run.start_from is None or run.start_from in runs
        assert ("base" in module.Config.model_fields and run.method != "ce") == ("base" in run.options)


@pytest.mark.parametrize(
    ("method", "options", "starts"),
    [("ce", {}, False), ("crt", {}, True), ("dro_lt", {}, True), ("logit_adjust", {"form": "post_hoc"}, True)],
)
def test_a_card_shows_start_from_where_it_saves_training(method, options, starts):
    assert ("start_from" in methods_page.train_block(method, options)) == starts


@every_method
def test_the_card_of_an_unmeasured_method_says_so(module):
    """A new method needs no timing of all the others."""
    assert "**Cost**\n\nNot measured." in methods_page.card(module, {})


@every_method
def test_the_card_of_a_measured_method_shows_its_cost(module):
    name = methods_page.name_of(module)
    measured = {"whole_step": {name: 1.234}, "share_of_step": {name: 0.056}}
    assert "1.23 times as long as one of cross-entropy; the method's own share is 5.6 %" in methods_page.card(
        module, measured
    )
    assert "nothing is trained" in methods_page.card(module, {"no_steps": [name]})


def test_a_module_without_parts_has_a_card():
    bare = ModuleType("ltpipe.methods.ce", "Bare (Nobody, 2026).")
    bare.Config = load_item("ltpipe.methods", "ce").Config
    card = methods_page.card(bare, {})
    assert "Bare (Nobody, 2026)." in card and methods_page.NOT_STATED in card


def test_a_time_is_shown_in_words():
    (row,) = [row for row in option_table(load_item("ltpipe.methods", "ldam").Config) if "`drw`" in row]
    assert "| epoch or share of all epochs or null |" in row


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_no_page_shows_an_object_of_pydantic(page):
    assert "FieldInfo" not in page.read_text()


def read(page: str) -> str:
    return (ROOT / page).read_text()


def accepted_runs(name: str) -> dict:
    return json.loads(read(f"conf/accepted/{name}.json"))["runs"]


def shown(entry: dict, metric: str) -> str:
    """Mean ± std, or the mean alone if there is one seed."""
    std = entry["std"].get(metric)
    return f"{entry['mean'][metric]:.1f}" + ("" if std is None else f" ± {std:.1f}")


def rows_of(name: str, metrics: tuple[str, ...]) -> list[str]:
    """Rows that a page must hold, from the accepted baseline, of all runs that have these metrics."""
    return [
        f"| `{run}` | {' | '.join(shown(entry, metric) for metric in metrics)} | {entry['n']} |"
        for run, entry in accepted_runs(name).items()
        if set(metrics) <= set(entry["mean"])
    ]


def test_the_fall_that_the_page_says_is_caught_is_what_the_accepted_seeds_give():
    spec = load(ROOT / "conf/base", ["digits_glt"])["digits_glt"]
    runs = accepted_runs("digits_glt")
    columns = [Column(run, metric, 1, 0.0) for run in runs for metric in spec.gate.all_metrics()]
    seeds = next(iter(runs.values()))["seeds"]
    values = np.array([[runs[c.run]["seeds"][seed]["metrics"][c.metric] for c in columns] for seed in seeds])
    power = find_power(values, len(seeds), columns, spec.gate.primary, spec.gate.level, [])
    caught = max(power.smallest[k] for k, c in enumerate(columns) if c.metric == spec.gate.primary)
    assert caught <= 2
    said = "a fall of two points of GLT accuracy in any one run is caught at least four times in five"
    assert said in " ".join(read("docs/judging.md").split())


GLT = ("clt.accuracy.all", "glt.accuracy.all", "glt.accuracy.few")


@pytest.mark.parametrize(
    ("page", "name", "metrics", "start"),
    [
        ("README.md", "digits_glt", GLT, ""),
        ("docs/which_method.md", "digits_glt", GLT, ""),
        ("docs/which_method.md", "digits_glt_all", GLT, ""),
        (
            "docs/which_method.md",
            "tiny_imagenet_lt_32px",
            ("lt.accuracy.all", "lt.accuracy.few"),
            "| tiny_imagenet_lt_32px ",
        ),
        ("docs/which_method.md", "tiny_imagenet_glt_32px", GLT[1:], "| tiny_imagenet_glt_32px (GLT) "),
    ],
)
def test_the_numbers_of_a_page_are_the_accepted_ones(page, name, metrics, start):
    for row in rows_of(name, metrics):
        assert start + row in read(page).splitlines(), f"{page} is not conf/accepted/{name}.json"


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf/accepted").glob("*.json")))
def test_the_changelog_s_newest_row_of_a_benchmark_has_its_accepted_numbers(name):
    primary = json.loads(read(f"conf/accepted/{name}.json"))["gate"]["primary"]
    rows = [line for line in read("CHANGELOG.md").splitlines() if f" | {name} | " in line]
    assert rows and f"{accepted_runs(name)['ce']['mean'][primary]:.1f}" in rows[0], "write a row under Numbers"


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load(read("CITATION.cff"))
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])


def test_single_seeds_on_the_page_of_methods_are_those_of_the_records():
    text = read("docs/which_method.md")
    for path in (RESULTS / "trained/cifar10_lt_jpeg").glob("*/*.json"):
        accuracy = json.loads(path.read_text())["metrics"]["lt"]["accuracy"]["all"]
        row = rf"\| `{path.parent.name}`.* \| {accuracy:.2f} \| 1 \|"
        assert re.search(row, text), row
    for path in (RESULTS / "trained/cifar10_lt").glob("*/*.json"):
        accuracy = json.loads(path.read_text())["metrics"]["lt"]["accuracy"]["all"]
        assert re.search(rf"`{path.parent.name}`(?: has)? {accuracy:.2f}", " ".join(text.split())), path


def performance_rows() -> list[str]:
    """Rows of docs/performance.md, from the measurements."""
    steps = json.loads((RESULTS / "method_cost.json").read_text())["steps"]
    memory = json.loads((RESULTS / "step_memory.json").read_text())["runs"]
    cases = json.loads((RESULTS / "split_scale.json").read_text())["cases"]
    speeds = [
        json.loads((RESULTS / f"{name}.json").read_text())["images_per_second"]
        for name in ("train_speed_cpu", "crop_speed_cpu")
    ]
    rows = [
        f"| `{name}` | {v['steps_of_ce']:.2f} | {v['steps_of_ce_min']:.2f} to {v['steps_of_ce_max']:.2f} "
        f"| {v['step_ms']:.0f} |"
        for name, v in steps.items()
    ]
    for name, runs in memory.items():
        for run, v in runs.items():
            images, four = v["images"], v["total_gib_by_accumulate"]["4"]
            sizes = f"{images['batch']} | {images['accumulate']} | {images['side']} | {v['total_gib']} | {four}"
            rows.append(f"| {name} | `{run}` | {sizes} |")
    rows += [f"| {name} | {v['rows']:,} | {v['median']:.1f} | {v['peak_gib']:.1f} |" for name, v in cases.items()]
    rows += [f"| {v['median']:.0f} |" for v in speeds[0].values()]
    rows += [f"| {v['median']:.0f} | {v['min']:.0f} to {v['max']:.0f} |" for v in speeds[1].values()]
    return rows


def test_the_page_of_performance_shows_what_was_measured():
    lines = read("docs/performance.md").splitlines()
    assert not [row for row in performance_rows() if not any(line.endswith(row) for line in lines)]


def test_the_method_of_the_page_on_extending_is_one():
    import torch

    from ltpipe.interface.streams import Batch, Problem

    blocks = [block for language, block in FENCE.findall(read("docs/extending.md")) if language == "python"]
    (code,) = (block for block in blocks if "Method" in block)  # tests/test_recipes.py has the others
    names: dict = {}
    exec(code, names)
    method = names["Method"](names["Config"](), Problem(np.arange(3), 3))
    logits, labels = torch.eye(3), torch.arange(3)
    out = type("Output", (), {"logits": logits})()
    loss = method.loss(out, Batch(torch.zeros(3, 3, 8, 8), labels, labels))["loss"]
    assert loss == torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)


def test_the_readme_starts_with_the_two_commands():
    assert re.search(r"```sh\nuv run dvc repro\nuv run pytest\n```", README)


@pytest.mark.parametrize(
    "place", ["README.md", "docs", "conf", "src", "pipelines", "tests", ".ci", ".github", "Dockerfile"]
)
def test_the_commands_that_readers_are_told_to_type_name_stages_that_exist(place):
    files = [path for path in [ROOT / place, *(ROOT / place).rglob("*")] if path.suffix in WITH_COMMANDS]
    text = "\n".join(path.read_text() for path in files if path.is_file() and path.name != "test_looks.py")
    named = {tag for tags in re.findall(r"--tags=([a-z,]+)", text) for tag in tags.split(",") if tag}
    named |= set(re.findall(r"\b([a-z]+)-digits_glt\b", text))
    assert named <= set(STAGES), named - set(STAGES)
    assert named or place not in ("docs", "src", "tests")


def test_the_readme_is_a_door():
    assert len(README.splitlines()) <= 70


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_says_what_it_is(page):
    """A block without a language could hold a command that nobody sees."""
    assert all(language for language, _ in FENCE.findall(page.read_text()))


def documented_commands() -> set[str]:
    return {command for page in pages() for command in commands(page.read_text())}


def test_every_command_of_the_docs_is_run_by_a_test_or_carries_the_reason_why_not():
    lists = [{command for command, _ in STORY}, set(ELSEWHERE), {c for reason in NOT_RUN.values() for c in reason}]
    known = set().union(*lists)
    assert sum(map(len, lists)) == len(known), "a command is in two lists"
    assert documented_commands() - known == set(), "run it in a test, or say in tests/documented.py why not"
    assert known - documented_commands() == set(), "no page has it any more: take it from tests/documented.py"


def test_a_command_is_found_wherever_it_stands():
    text = """`uv run a` in a sentence, and `kedro run` is a name here.
| what | `kedro run --pipeline=b` | `dvc` |
```sh
docker run \\
  -c     # why
uv run d
```
```text
uv run never
```
"""
    assert list(commands(text)) == ["docker run -c", "uv run d", "uv run a", "kedro run --pipeline=b"]


@pytest.mark.parametrize(("place", "words"), sorted(set(ELSEWHERE.values())))
def test_the_place_that_runs_a_command_is_there(place, words):
    file, _, test = place.partition("::")
    text = read(file)
    assert words in text
    assert not test or f"def {test}(" in text


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_commands_of_the_docs_run_as_they_are(tmp_path):
    """One story in order, in a copy of the project; only `uv run` is left out, since the environment is there."""
    copy = copy_project(tmp_path / "project")
    (copy / "docs").mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "before"]):
        subprocess.run([*git, *arguments], cwd=copy, check=True)
    for command, code in STORY:
        if "predict" in command:
            shutil.copy(copy / "data/06_models/digits_glt/ce/s0/model.onnx", copy)
            shutil.copytree(ROOT / "docs/pictures", copy / "images", ignore=shutil.ignore_patterns("*.svg"))
        done = call(copy, "sh", "-c", command.removeprefix("uv run "))
        assert done.returncode == code, f"{command}: {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"


LINK = re.compile(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize(
    "page", sorted({*pages(), *(ROOT / "docs").rglob("*.md")}), ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_every_link_of_a_page_is_a_file_of_the_repository(page):
    """As GitHub follows it; the site's own links are held by --strict."""
    assert not [link for link in LINK.findall(page.read_text()) if not (page.parent / link).is_file()]


def test_the_site_lists_every_page():
    """So says --strict too, but minutes later, where mkdocs is installed."""
    text = (ROOT / "mkdocs.yml").read_text()
    found = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert not [page for page in found if not re.search(rf": {re.escape(page)}$", text, re.MULTILINE)]


INSTALL = "mkdocs is not installed: uv sync --group docs"


@pytest.fixture(scope="module")
def hook():
    """The module docs/site_hook.py."""
    pytest.importorskip("mkdocs", reason=INSTALL)
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs/site_hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_list_after_a_line_of_text_begins_a_paragraph_in_the_site(hook):
    text = "Words:\n* a\n  b\n* c\n\n```text\nwords\n* no list\n```\nWords\n1. d\n2. e"
    expected = "Words:\n\n* a\n  b\n* c\n\n```text\nwords\n* no list\n```\nWords\n\n1. d\n2. e"
    assert hook.separate_lists(text) == expected


def test_a_picture_with_a_dark_form_is_shown_by_the_reader_s_scheme(hook, tmp_path):
    for name in ("a.png", "a_dark.png", "b.png"):
        (tmp_path / name).touch()
    both = "![A (x)](a.png#only-light) ![A (x)](a_dark.png#only-dark)"
    assert hook.show_by_scheme("![A (x)](a.png) ![B](b.png) [a](a.png)", tmp_path) == f"{both} ![B](b.png) [a](a.png)"


@pytest.mark.parametrize(
    ("path", "uri"),
    [("docs/adr/README.md", "adr/README.md"), ("CHANGELOG.md", "repository/CHANGELOG.md"), ("README.md", "index.md")],
)
def test_a_file_of_the_repository_has_a_place_in_the_site(hook, path, uri):
    assert hook.place_in_site(path) == uri
    assert path == "README.md" or hook.place_in_repository(uri) == path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    pytest.importorskip("mkdocs", reason=INSTALL)
    pytest.importorskip("mkdocstrings", reason=INSTALL)
    folder = tmp_path_factory.mktemp("site")
    words = [BIN / "python", "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return done, folder


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(site):
    done, folder = site
    assert done.returncode == 0, done.stderr
    assert (folder / "index.html").exists() and (folder / "repository/CHANGELOG.html").exists()


FETCHED = re.compile(
    r"<(?:script|img|iframe|source|object|video|audio|embed)\b[^>]*?(?:src|data)=[\"']?((?:https?:)?//[^\"' >]+)"
)
LINKED = re.compile(r"<link\b[^>]*?href=[\"']?((?:https?:)?//[^\"' >]+)")
IN_STYLES = re.compile(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"') ]+)")


def fetched_from_elsewhere(text: str) -> list[str]:
    return [address for kind in (FETCHED, LINKED, IN_STYLES) for address in kind.findall(text)]


@pytest.mark.slow
def test_the_site_needs_no_network_to_read(site):
    _, folder = site
    texts = {path: path.read_text() for path in folder.rglob("*") if path.suffix in (".html", ".css", ".svg")}
    assert {path.suffix for path in texts} == {".html", ".css", ".svg"}
    found = {path.name: fetched_from_elsewhere(text) for path, text in texts.items()}
    assert not {name: addresses for name, addresses in found.items() if addresses}
    assert not [path for path, text in texts.items() if 'class="mermaid"' in text], "the theme fetches mermaid"


@pytest.mark.parametrize(
    "text",
    [
        '<script async src="https://cdn.example/x.js">',
        "<link rel=stylesheet href=//fonts.example/x.css>",
        "<img alt='a' src='http://a.example/b.png'>",
        'p { background: url("https://a.example/b.png") }',
        "@import 'https://a.example/b.css'",
    ],
)
def test_what_is_fetched_from_elsewhere_is_found(text):
    assert len(fetched_from_elsewhere(text)) == 1


def test_a_link_that_a_reader_may_follow_is_not_fetched():
    assert fetched_from_elsewhere('<a href="https://a.example">a</a> <img src="pictures/report.png">') == []
