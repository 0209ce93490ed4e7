"""docs/methods.md: one card for each method, from its module and the measured costs."""

import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from ltpipe.config.spec import load_item, menu_names
from ltpipe.interface.method import Method
from ltpipe.pages.options import option_table

HEADER = """# Methods

Written by `ltpipe generate` from the modules in `src/ltpipe/methods`; edit those, not this.
Hooks are what the method overrides of `ltpipe/interface/method.py`. Cost is a whole training step (augmentation,
network, loss, hooks, optimiser) in steps of cross-entropy, and in brackets the method's own work in it (loss and
after_step beyond cross-entropy's) as a share of one; a step of BBN has two batches. By `benchmarks/method_cost.py`:
ResNet-32 at batch 128{where}.
"""


def modules() -> list[ModuleType]:
    """Every method module, by name."""
    return [load_item("ltpipe.methods", name) for name in menu_names("ltpipe.methods")]


def name_of(module: ModuleType) -> str:
    """The method's name: its file's."""
    return module.__name__.rpartition(".")[2]


def hooks(module: ModuleType) -> list[str]:
    """Hooks of the base class that the method overrides."""
    declared = {name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("_")}
    return sorted(declared & set(vars(module.Method)))


def differences(doc: str) -> str:
    """The docstring's paragraph on the authors' code, on one line."""
    found = re.search(r"Where the (?:authors'|reference) code differs:\s*(.*?)(?:\n\s*\n|\Z)", doc, re.S)
    return " ".join(found.group(1).split()) if found else "-"


def cost(name: str, measured: dict[str, Any]) -> str:
    """What a step costs; measured: the result of benchmarks/method_cost.py."""
    if name in measured.get("no_steps", ()):
        return "no steps, nothing is trained"
    if name not in measured.get("whole_step", {}):
        return "not measured"
    return f"{measured['whole_step'][name]:.2f} steps of cross-entropy (own work {measured['share_of_step'][name]:.1%})"


def section(module: ModuleType, measured: dict[str, Any]) -> str:
    """One method's section."""
    name, doc = name_of(module), inspect.cleandoc(module.__doc__ or "")
    head, _, rest = doc.partition("\n\n")
    lines = [
        f"## {name}",
        "",
        " ".join(head.split()),
        "",
        f"* Overrides: {', '.join(f'`{hook}`' for hook in hooks(module)) or 'nothing'}",
        f"* Cost per step: {cost(name, measured)}",
        f"* Where the reference code differs: {differences(doc)}",
        "",
    ]
    formulas = re.split(r"\n\s*\nWhere the", rest)[0]
    if formulas.strip():
        lines += ["```", formulas.rstrip(), "```", ""]
    return "\n".join([*lines, *option_table(module.Config), ""])


def text(root: Path) -> str:
    """The whole page."""
    path = root / "benchmarks/results/method_cost.json"
    measured = json.loads(path.read_text()) if path.exists() else {}
    return "\n".join([HEADER.format(where=where(measured)), *(section(module, measured) for module in modules())])


def where(measured: dict[str, Any]) -> str:
    """On what it was measured, how often, and what else the machine did."""
    if not measured:
        return ", not measured yet"
    note = f"; {measured['note']}" if measured.get("note") else ""
    return f", {measured['device']}, median of {measured['n']} rounds{note}"
