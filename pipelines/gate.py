"""gate: fail with the list of numbers that failed. It takes the report as input, so the report is written first.

The node `state` runs wherever something is judged, so that nothing is judged by the state of an earlier run.
"""

from functools import partial, update_wrapper

from kedro.pipeline import Node, Pipeline

from ltpipe.evaluation.gate import gate
from ltpipe.state import state


def create(name: str) -> Pipeline:
    """Return the stage of one benchmark."""
    present = update_wrapper(partial(state, benchmark=name), state)
    parts = [f"params:{name}", f"{name}.data_identity", f"{name}.accepted"]
    return Pipeline(
        [
            Node(present, parts, f"{name}.state", name="state", tags=["report", "gate"], namespace=name),
            Node(
                gate,
                [f"{name}.verdict", f"{name}.report", f"{name}.state"],
                None,
                name="gate",
                tags="gate",
                namespace=name,
            ),
        ]
    )
