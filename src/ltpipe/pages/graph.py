"""Write docs/graph.md: the stages of a dvc.yaml and what they wait for, as a picture and as a table.

The picture is the text that `dvc dag --md` prints; GitHub draws it. The table says the same without a browser.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

OUTPUTS = ("outs", "metrics", "plots")
HEADER = """# The graph

Written by `ltpipe generate` from `dvc.yaml`; edit neither. These are the stages of `digits_glt`, as `dvc dag --md`
draws them: an arrow leads from a stage to one that reads its files. [Architecture](architecture.md) says what each
stage does. `parameters` leads to every stage, since each one depends on its own keys of the file that it writes.
"""


def predecessors(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return stage -> the stages that write what it reads, both in the order of `stages`, which is dvc.yaml's."""
    written = {name: _paths(stage, OUTPUTS) for name, stage in stages.items()}
    found = {}
    for name, stage in stages.items():
        read = _paths(stage, ("deps", "params"))
        found[name] = [other for other, paths in written.items() if other != name and _overlap(paths, read)]
    return found


def _paths(stage: Mapping[str, Any], kinds: tuple[str, ...]) -> set[PurePosixPath]:
    """Return the paths of a stage's lists; an entry with options is a mapping of one path."""
    entries = [entry for kind in kinds for entry in stage.get(kind, [])]
    return {PurePosixPath(next(iter(entry)) if isinstance(entry, dict) else entry) for entry in entries}


def _overlap(written: set[PurePosixPath], read: set[PurePosixPath]) -> bool:
    """Tell whether a path is in both sets, or lies in a folder that is in the other one."""
    return any({path, *path.parents} & written for path in read) or any({*path.parents} & read for path in written)


def render_graph(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the content of docs/graph.md."""
    before = predecessors(stages)
    rows = [f"| {name} | {', '.join(before[name]) or '-'} | `{stages[name]['cmd']}` |" for name in stages]
    table = ["| stage | it reads what these write | command |", "|---|---|---|", *rows]
    return "\n".join([HEADER, *draw(before), "", "The same in words, in the order in which they run:", "", *table, ""])


def draw(before: Mapping[str, list[str]]) -> list[str]:
    """Return the lines of the picture in Mermaid's language; before: see `predecessors`."""
    nodes = {name: f"node{number}" for number, name in enumerate(sorted(before), start=1)}
    arrows = sorted((other, name) for name, others in before.items() for other in others)
    labels = [f'\t{node}["{name}"]' for name, node in nodes.items()]
    return ["```mermaid", "flowchart TD", *labels, *(f"\t{nodes[a]}-->{nodes[b]}" for a, b in arrows), "```"]
