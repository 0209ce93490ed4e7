"""evaluate: predict with the exported model, then compute metrics from the predictions alone."""

from kedro.pipeline import Node, Pipeline

from ltpipe.evaluation.measure import measure
from ltpipe.serving.session import predict
from pipelines.cell import named, recipe


def create(name: str, run: str, seed: str) -> Pipeline:
    """Return the stage of one cell."""
    cell = f"{name}.{run}.{seed}"
    manifest = {"manifest": f"{name}.manifest"}
    asked = {"parity": f"params:{name}.parity", **manifest, **recipe(name, run, seed)}
    model = {"onnx": f"{cell}.onnx", "checkpoint": f"{cell}.checkpoint", "images": f"{name}.images", **asked}
    numbers = {"predictions": f"{cell}.predictions", "evaluation": f"params:{name}.evaluate", **asked}
    outputs = [f"{cell}.metrics", f"{cell}.details", f"{cell}.classes"]
    return Pipeline(
        [
            Node(named(predict, cell), model, f"{cell}.predictions", name="predict", tags="evaluate", namespace=cell),
            Node(named(measure, cell), numbers, outputs, name="measure", tags="evaluate", namespace=cell),
        ]
    )
