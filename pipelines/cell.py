"""What the stages of a cell have in common: the cell's name and its recipe, by which they check what they read."""

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any


def named(function: Callable[..., Any], cell: str) -> Callable[..., Any]:
    """Return a stage's function with the argument `cell` filled in."""
    # Kedro reads a function's name and annotations, which a partial alone does not have.
    return update_wrapper(partial(function, cell=cell), function)


def recipe(name: str, run: str, seed: str) -> dict[str, str]:
    """Return the parameters that a cell is trained with: argument -> dataset."""
    return {
        "run": f"params:{name}.runs.{run}.train",
        "schedule": f"params:{name}.schedule",
        "model": f"params:{name}.model",
        "seed": f"params:{name}.seeds.{seed}",
    }
