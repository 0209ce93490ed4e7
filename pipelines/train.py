"""train: train one run with one seed."""

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Node, Pipeline

from ltpipe.data.originals import open_files, open_packed
from ltpipe.training.train import train
from pipelines.cell import named, recipe


def create(name: str, run: str, seed: str, start: dict[str, str], source: str, pictures: str) -> Pipeline:
    """Return the stage of one cell.

    start: {"start": dataset of another run's checkpoint}, or empty. source: name of the source. pictures:
    source.pictures.
    """
    cell = f"{name}.{run}.{seed}"
    opened = {"pictures": f"{cell}.opened"} if pictures != "squares" else {}
    inputs = {
        "manifest": f"{name}.manifest",
        "images": f"{name}.images",
        "scratch": f"{cell}.scratch",
        "kept": f"{cell}.kept",
        "kept_log": f"{cell}.kept_log",
        "kept_cost": f"{cell}.kept_cost",
        **recipe(name, run, seed),
        **start,
        **opened,
    }
    outputs = [f"{cell}.checkpoint", f"{cell}.log", f"{cell}.cost"]
    fit = Node(named(train, cell), inputs, outputs, name="train", tags="train", namespace=cell)
    return Pipeline([_open(name, cell, source, pictures), fit] if opened else [fit])


def _open(name: str, cell: str, source: str, pictures: str) -> Node:
    """Return the node that finds the whole pictures, in their files or where they are packed."""
    function: Callable[..., Any] = open_files if pictures == "files" else open_packed
    files, packed = [f"params:{name}.source", f"raw_{source}"], [f"{name}.pictures", f"{name}.picture_sizes"]
    inputs = [f"{name}.originals", *(files if pictures == "files" else packed)]
    return Node(function, inputs, f"{cell}.opened", name="open", tags="train", namespace=cell)
