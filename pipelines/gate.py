"""gate: fail with the list of numbers that failed. It takes the report as input, so the report is written first."""

from kedro.pipeline import Node, Pipeline

from ltpipe.evaluation.gate import gate


def create(name: str) -> Pipeline:
    """Return the stage of one benchmark."""
    inputs = [f"{name}.verdict", f"{name}.report"]
    return Pipeline([Node(gate, inputs, None, name="gate", tags="gate", namespace=name)])
