"""Documents that are generated are current; numbers and commands in the README are real."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ltpipe.pages import methods as methods_page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_methods_page_is_what_the_modules_say():
    assert (ROOT / "docs/methods.md").read_text() == methods_page.text(ROOT)


def test_every_method_s_cost_is_measured_or_it_has_no_steps():
    measured = json.loads((ROOT / "benchmarks/results/method_cost.json").read_text())
    costs = {
        methods_page.name_of(m): methods_page.cost(methods_page.name_of(m), measured) for m in methods_page.modules()
    }
    assert [name for name, cost in costs.items() if cost.startswith("no steps")] == ["tau_norm"]
    assert not [name for name, cost in costs.items() if "not measured" in cost]


def test_every_method_states_its_paper_and_what_it_overrides():
    for module in methods_page.modules():
        head = (module.__doc__ or "").partition("\n\n")[0]
        assert re.search(r"(19|20)\d\d|Paper: none", head), f"{module.__name__} names no paper"


def table(page: str, accepted: dict, metrics: tuple[str, ...]) -> list[str]:
    """Rows that the README must hold: mean ± std over n seeds, from the accepted baseline."""
    return [
        f"| `{run}` | "
        + " | ".join(f"{entry['mean'][m]:.1f} ± {entry['std'][m]:.1f}" for m in metrics)
        + f" | {entry['n']} |"
        for run, entry in accepted["runs"].items()
    ]


def test_the_readme_s_numbers_are_the_accepted_ones():
    accepted = json.loads((ROOT / "conf/accepted/digits_glt.json").read_text())
    for row in table(README, accepted, ("clt.accuracy.all", "glt.accuracy.all", "glt.accuracy.few")):
        assert row in README


def test_the_readme_starts_with_the_two_commands():
    assert re.search(r"```\nuv run dvc repro\nuv run pytest\n```", README)


def commands() -> list[str]:
    """Commands of the README's table that run by themselves."""
    found = re.findall(r"`uv run ([^`]+)`", README)
    skipped = ("pytest", "ltpipe.predict", "ltpipe.accept")  # the tests themselves, and those that need an argument
    return sorted({c for c in found if not any(word in c for word in skipped)} - {"dvc repro"})


@pytest.mark.soak
@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_runs(command):
    first, *rest = shlex.split(command)
    done = subprocess.run([Path(sys.executable).parent / first, *rest], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
