"""export: write a cell's checkpoint as ONNX, with a parity report."""

from kedro.pipeline import Node, Pipeline

from ltpipe.serving.export import export


def create(name: str, run: str, seed: str) -> Pipeline:
    """Return the stage of one cell."""
    cell = f"{name}.{run}.{seed}"
    inputs = {
        "checkpoint": f"{cell}.checkpoint",
        "manifest": f"{name}.manifest",
        "images": f"{name}.images",
        "run": f"params:{name}.runs.{run}.train",
        "model": f"params:{name}.model",
        "parity": f"params:{name}.parity",
    }
    outputs = [f"{cell}.onnx", f"{cell}.parity"]
    return Pipeline([Node(export, inputs, outputs, name="export", tags=["export", "measure"], namespace=cell)])
