"""Documents that are generated are current; numbers and commands in the README are real."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

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


def table(page: str, accepted: dict, metrics: tuple[str, ...]) -> list[str]:
    """Rows that the README must hold: mean ± std over n seeds, from the accepted baseline."""
    return [
        f"| `{run}` | "
        + " | ".join(f"{entry['mean'][m]:.1f} ± {entry['std'][m]:.1f}" for m in metrics)
        + f" | {entry['n']} |"
        for run, entry in accepted["runs"].items()
    ]


def test_the_fall_that_the_readme_says_is_caught_is_what_the_accepted_seeds_give():
    spec = load(ROOT / "conf/base", ["digits_glt"])["digits_glt"]
    runs = json.loads((ROOT / "conf/accepted/digits_glt.json").read_text())["runs"]
    columns = [Column(run, metric, 1, 0.0) for run in runs for metric in spec.gate.all_metrics()]
    seeds = next(iter(runs.values()))["seeds"]
    values = np.array([[runs[c.run]["seeds"][seed]["metrics"][c.metric] for c in columns] for seed in seeds])
    power = find_power(values, len(seeds), columns, spec.gate.primary, spec.gate.level, [])
    caught = max(power.smallest[k] for k, c in enumerate(columns) if c.metric == spec.gate.primary)
    assert caught <= 2
    assert "a fall of two points of GLT accuracy in any one run is caught at least four times in five" in README


def test_the_readme_s_numbers_are_the_accepted_ones():
    accepted = json.loads((ROOT / "conf/accepted/digits_glt.json").read_text())
    for row in table(README, accepted, ("clt.accuracy.all", "glt.accuracy.all", "glt.accuracy.few")):
        assert row in README, f"the README's table is not conf/accepted/digits_glt.json: it must hold {row}"


def test_the_readme_starts_with_the_two_commands():
    assert re.search(r"```\nuv run dvc repro\nuv run pytest\n```", README)


@pytest.mark.parametrize(
    "place", ["README.md", "docs", "conf", "src", "pipelines", "tests", ".ci", ".github", "Dockerfile"]
)
def test_the_commands_that_readers_are_told_to_type_name_stages_that_exist(place):
    files = [path for path in [ROOT / place, *(ROOT / place).rglob("*")] if path.suffix in WITH_COMMANDS]
    text = "\n".join(path.read_text() for path in files if path.is_file() and path.name != "test_looks.py")
    named = {tag for tags in re.findall(r"--tags=([a-z,]+)", text) for tag in tags.split(",") if tag}
    named |= set(re.findall(r"\b([a-z]+)-digits_glt\b", text))
    assert named <= set(STAGES), named - set(STAGES)
    assert named or place not in ("README.md", "docs", "src", "tests")


def commands() -> list[str]:
    """Commands of the README's table that run by themselves."""
    found = re.findall(r"`uv run ([^`]+)`", README)
    # the tests themselves, and what needs an argument or data of the user's
    skipped = ("pytest", "ltpipe predict", "ltpipe accept", "ltpipe init", "image_folder")
    return sorted({c for c in found if not any(word in c for word in skipped)} - {"dvc repro"})


@pytest.mark.soak
@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_runs(command):
    first, *rest = shlex.split(command)
    done = subprocess.run([Path(sys.executable).parent / first, *rest], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
