"""Check that the cells that are judged are those of the present state."""

from collections.abc import Iterable, Mapping
from typing import Any

from ltpipe.config.spec import Refused
from ltpipe.recipe.cell import require_cell


def check_cells(state: Mapping[str, Any], found: Iterable[Mapping[str, Any]]) -> None:
    """Raise Refused unless `found` are exactly the cells of `state`, each of its code, recipe, data and measurement.

    state: see `ltpipe.state`. found: metrics of the cells, or what a summary keeps of them. A cell that starts from
    another one must have started from the checkpoint that was measured there.
    """
    cells = {cell["cell"]: cell for cell in found}
    asked: Mapping[str, Mapping[str, Any]] = state["cells"]
    if wrong := sorted(set(cells) ^ set(asked)):
        raise Refused(f"the cells are not those of {state['benchmark']}: {', '.join(wrong)} is missing or too much")
    for name, cell in cells.items():
        require_cell("the table of metrics", cell, asked[name])
    for name, start in state["starts"].items():
        begun, there = cells[name]["started_from"], cells[start]["checkpoint"]
        if begun != there:
            raise Refused(
                f"{name} started from checkpoint {begun}, but {start} has {there}: train it again, "
                f"kedro run --pipeline={state['benchmark']} --namespaces={name}, or dvc repro"
            )
