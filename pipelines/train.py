"""train: train one run with one seed."""

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from ltpipe.training.train import train


def create(name: str, run: str, seed: str, start: dict[str, str]) -> Pipeline:
    """Return the stage of one cell.

    start: the checkpoint of another run that it starts from, and that run's parameters (start, start_run), or empty.
    """
    cell = f"{name}.{run}.{seed}"
    # Kedro reads a function's name and annotations, which a partial alone does not have.
    train_cell = update_wrapper(partial(train, cell=cell), train)
    inputs = {
        "manifest": f"{name}.manifest",
        "images": f"{name}.images",
        "scratch": f"{cell}.scratch",
        "run": f"params:{name}.runs.{run}.train",
        "schedule": f"params:{name}.schedule",
        "model": f"params:{name}.model",
        "seed": f"params:{name}.seeds.{seed}",
        **start,
    }
    outputs = [f"{cell}.checkpoint", f"{cell}.log"]
    return Pipeline([Node(train_cell, inputs, outputs, name="train", tags="train", namespace=cell)])
