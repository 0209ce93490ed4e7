"""evaluate: predict with the exported model, then compute metrics from the predictions alone."""

from kedro.pipeline import Node, Pipeline

from ltpipe.evaluation.measure import measure
from ltpipe.serving.session import predict


def create(name: str, run: str, seed: str) -> Pipeline:
    """Return the stage of one cell."""
    cell = f"{name}.{run}.{seed}"
    tags = ["evaluate", "measure"]
    models = [f"{cell}.onnx", f"{name}.manifest", f"{name}.images"]
    numbers = [f"{cell}.predictions", f"params:{name}.evaluate", f"params:{name}.runs.{run}.train"]
    outputs = [f"{cell}.metrics", f"{cell}.details", f"{cell}.classes"]
    return Pipeline(
        [
            Node(predict, models, f"{cell}.predictions", name="predict", tags=tags, namespace=cell),
            Node(measure, numbers, outputs, name="measure", tags=tags, namespace=cell),
        ]
    )
