"""Write docs/methods.md: a card for each method, from its module and the measured costs.

A module's docstring has parts that begin with a label at the start of a line; ltpipe/methods/__init__.py lists them.
"""

import inspect
import json
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml

from ltpipe import methods as menu
from ltpipe.config.spec import load_item, menu_names
from ltpipe.interface.phases import Phase
from ltpipe.interface.streams import Problem
from ltpipe.pages.options import option_table
from ltpipe.recipe.run import MethodChoice

HEADER = """# Methods

Written by `ltpipe generate` from the modules in `src/ltpipe/methods`; edit those, not this page.

{contents}

What the cards have in common:
* "How to use it" shows lines for `runs:` of a benchmark (`conf/base/parameters/NAME.yml`). A benchmark with several
  training splits also needs `split`, e.g. `train: {{method: ce, split: train_glt}}`. `start_from` names another run of
  the same benchmark; its checkpoint of the same seed is taken.
* In an option of type "epoch or share of all epochs", an integer is an epoch, counted from 0, and a number with a
  decimal point from 0.0 to 1.0 is a share: of 100 epochs, 0.8 is epoch 80.
* "Cost" compares a training step (augmentation, network, loss, hooks, optimiser) with a step of cross-entropy. The
  method's own share is its loss and `after_step` beyond those of cross-entropy, in cross-entropy steps. Measured by
  `benchmarks/method_cost.py` with ResNet-32 at batch 128{where}.

Letters in the formulas:
{letters}
"""
# Labels of a docstring's parts, in the order of the docstring.
LABELS = ("Formula", "Use", "Suggested values", "Where the authors' code differs", "Cost", "Attribution")
# Parts that every method has.
REQUIRED = ("Headline", "What it does", *(label for label in LABELS if label != "Cost"))
LABEL = re.compile(rf"^({'|'.join(LABELS)}):", re.MULTILINE)
NOT_STATED = "Not stated."


def modules() -> list[ModuleType]:
    """Return every method module, sorted by name."""
    return [load_item(menu.__name__, name) for name in menu_names(menu.__name__)]


def name_of(module: ModuleType) -> str:
    """Return the method's name, which is that of its file."""
    return module.__name__.rpartition(".")[2]


def read_parts(doc: str | None) -> dict[str, str]:
    """Return the parts of a module's docstring by label; the two parts before the first label by their titles."""
    opening, *labelled = LABEL.split(inspect.cleandoc(doc or ""))
    headline, _, description = opening.partition("\n\n")
    parts = {"Headline": " ".join(headline.split()), "What it does": description}
    parts |= dict(zip(labelled[::2], labelled[1::2], strict=True))
    return {label: _as_paragraph(text) for label, text in parts.items()}


def _as_paragraph(text: str) -> str:
    """Return the text without indentation, with a capital letter if it continues the line of its label."""
    if text.startswith(" "):
        text = text.lstrip()
        text = text[:1].upper() + text[1:]
    return textwrap.dedent(text).strip("\n")


def starts_from_a_run(choice: MethodChoice) -> bool:
    """Tell whether the method needs a finished run to start from, or trains less if it has one."""
    problem, schedule = Problem(np.arange(2), 2), Phase(epochs=100, lr=0.1)
    started, alone = (choice.build(problem, start) for start in (True, False))
    return started.needs().start_from or started.phases(schedule) != alone.phases(schedule)


def train_block(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the block `train` of a run with these options; a method around a base names the base."""
    choice = MethodChoice(method=name, options=options)
    base = getattr(choice.config(), "base", None)
    options = options if base is None else {"base": base} | options
    block: dict[str, Any] = {"method": name}
    if options:
        block["options"] = options
    return block | {"start_from": "ce"} if starts_from_a_run(choice) else block


def example_runs(module: ModuleType) -> dict[str, dict[str, Any]]:
    """Return runs that show how to use the method: name of the run -> {train: block}.

    They are those of the docstring's part `Use`, or one with the default options. If they start from a finished run,
    that run comes first.
    """
    name = name_of(module)
    options = yaml.safe_load(read_parts(module.__doc__).get("Use", "")) or {name: {}}
    runs = {run: {"train": train_block(name, chosen or {})} for run, chosen in options.items()}
    needs_start = any("start_from" in run["train"] for run in runs.values())
    return {"ce": {"train": {"method": "ce"}}} | runs if needs_start else runs


def usage(module: ModuleType) -> str:
    """Return the runs as YAML, one to a line."""
    lines = [
        f"  {name}: {yaml.safe_dump(run, default_flow_style=True, sort_keys=False, width=1000).strip()}"
        for name, run in example_runs(module).items()
    ]
    return "\n".join(["runs:", *lines])


def step_cost(name: str, measured: dict[str, Any]) -> str:
    """Return what a training step costs, as a sentence. measured: the result of benchmarks/method_cost.py."""
    if name in measured.get("no_steps", ()):
        return "No training step: nothing is trained."
    if name not in measured.get("whole_step", {}):
        return "Not measured."
    times, share = measured["whole_step"][name], measured["share_of_step"][name]
    own_share = f"the method's own share is {100 * share:.1f} %"
    return f"A training step takes {times:.2f} times as long as one of cross-entropy; {own_share}."


def fenced(text: str, language: str = "") -> str:
    """Return the text as a block of code."""
    return f"```{language}\n{text}\n```"


def card(module: ModuleType, measured: dict[str, Any]) -> str:
    """Return one method's section."""
    name, parts = name_of(module), read_parts(module.__doc__)
    paragraphs = [f"## {name}", parts["Headline"], parts["What it does"]]
    if "Formula" in parts:
        paragraphs.append(fenced(parts["Formula"]))
    sections = {
        "How to use it": fenced(usage(module), "yaml"),
        "Suggested values": parts.get("Suggested values", NOT_STATED),
        "Options": "\n".join(option_table(module.Config)),
        "Where the authors' code differs": parts.get("Where the authors' code differs", NOT_STATED),
        "Cost": f"{step_cost(name, measured)}\n{parts.get('Cost', '')}".strip(),
        "Attribution": parts.get("Attribution", NOT_STATED),
    }
    for title, text in sections.items():
        paragraphs += [f"**{title}**", text]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def where(measured: dict[str, Any]) -> str:
    """Return on which machine the costs were measured, how often, and what else the machine did."""
    if not measured:
        return "; not measured yet"
    note = f"; {measured['note']}" if measured.get("note") else ""
    return f", {measured['device']}, median of {measured['n']} rounds{note}"


def letters() -> str:
    """Return the legend of letters in the docstring of ltpipe.methods."""
    return (menu.__doc__ or "").partition("\nLetters:\n")[2].strip()


def header(measured: dict[str, Any]) -> str:
    """Return the page's beginning: contents, common remarks and letters."""
    contents = ", ".join(f"[{name}](#{name})" for name in map(name_of, modules()))
    return HEADER.format(contents=contents, where=where(measured), letters=letters())


def render_methods(root: Path) -> str:
    """Return the content of docs/methods.md."""
    path = root / "benchmarks/results/method_cost.json"
    measured = json.loads(path.read_text()) if path.exists() else {}
    return "\n".join([header(measured), *(card(module, measured) for module in modules())])
