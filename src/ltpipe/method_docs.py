"""docs/methods.md from the method modules: one section a method, nothing written twice.

python -m ltpipe.method_docs            writes docs/methods.md
python -m ltpipe.method_docs --check    fails where the file is not what would be written
"""

import inspect
import json
import re
import sys
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import click

from ltpipe import methods
from ltpipe.atomic import write
from ltpipe.methods.base import Method
from ltpipe.specs import Refused, named

HEADER = """# Methods

Written by `python -m ltpipe.method_docs` from the modules in `src/ltpipe/methods`; edit those, not this.
Hooks are what the method overrides of `methods/base.py`. Cost is a whole training step (augmentation, network, loss,
hooks, optimiser) in steps of cross-entropy, and in brackets the method's own work in it (loss and after_step beyond
cross-entropy's) as a share of one; a step of BBN has two batches. By `benchmarks/method_cost.py`: ResNet-32 at batch
128{where}.
"""


def modules() -> list[ModuleType]:
    """Every method module, by name."""
    names = sorted(m.name for m in iter_modules(methods.__path__) if m.name != "base")
    return [named("ltpipe.methods", name) for name in names]


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


def options(module: ModuleType) -> list[str]:
    """One row an option: name, type, default, description."""
    rows = ["| option | type | default | what |", "|---|---|---|---|"]
    for name, field in module.Config.model_fields.items():
        kind = field.annotation.__name__ if isinstance(field.annotation, type) else str(field.annotation)
        kind = kind.replace("typing.", "").replace("NoneType", "None").replace("|", "\\|")
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
        rows.append(f"| `{name}` | {kind} | {default} | {field.description or '-'} |")
    return rows if len(rows) > 2 else ["No options."]


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
    return "\n".join([*lines, *options(module), ""])


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


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail where the file is not what would be written.")
def main(check: bool) -> None:
    """Write docs/methods.md from the method modules."""
    root = Path.cwd()
    path = root / "docs/methods.md"
    wanted = text(root)
    if not check:
        write(path, wanted.encode())
        sys.stdout.write(f"docs/methods.md: {len(modules())} methods\n")
    elif not path.exists() or path.read_text() != wanted:
        raise Refused("docs/methods.md is not what the modules say: python -m ltpipe.method_docs")


if __name__ == "__main__":
    main()
