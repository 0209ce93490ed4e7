"""gate: fails with the numbers that failed; after the report, so that a failed run still has one."""

from kedro.pipeline import Node, Pipeline

from ltpipe.evaluation.judge import gate


def create(name: str) -> Pipeline:
    """Return the stage of one benchmark."""
    inputs = [f"{name}.verdict", f"{name}.report"]
    return Pipeline([Node(gate, inputs, None, name="gate", tags="gate", namespace=name)])
