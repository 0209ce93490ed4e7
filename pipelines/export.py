"""export: write a cell's checkpoint as ONNX, with a parity report."""

from kedro.pipeline import Node, Pipeline

from ltpipe.serving.export import export
from pipelines.cell import named, recipe


def create(name: str, run: str, seed: str) -> Pipeline:
    """Return the stage of one cell."""
    cell = f"{name}.{run}.{seed}"
    inputs = {
        "checkpoint": f"{cell}.checkpoint",
        "manifest": f"{name}.manifest",
        "images": f"{name}.images",
        "parity": f"params:{name}.parity",
        **recipe(name, run, seed),
    }
    outputs = [f"{cell}.onnx", f"{cell}.parity"]
    return Pipeline([Node(named(export, cell), inputs, outputs, name="export", tags="export", namespace=cell)])
