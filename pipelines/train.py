"""train: train one run with one seed."""

from kedro.pipeline import Node, Pipeline

from ltpipe.training.train import train
from pipelines.cell import named, recipe


def create(name: str, run: str, seed: str, start: dict[str, str]) -> Pipeline:
    """Return the stage of one cell. start: {"start": dataset of another run's checkpoint}, or empty."""
    cell = f"{name}.{run}.{seed}"
    inputs = {
        "manifest": f"{name}.manifest",
        "images": f"{name}.images",
        "scratch": f"{cell}.scratch",
        **recipe(name, run, seed),
        **start,
    }
    outputs = [f"{cell}.checkpoint", f"{cell}.log"]
    return Pipeline([Node(named(train, cell), inputs, outputs, name="train", tags="train", namespace=cell)])
