"""parameters: write the benchmark's parameters into one file, with defaults and blocks of other benchmarks filled in.

DVC watches the keys of this file. In the benchmark's own file it would see neither a changed default nor a changed
block of another benchmark.
"""

from kedro.pipeline import Node, Pipeline

from ltpipe.config.parameters import whole


def create(name: str) -> Pipeline:
    """Return the stage of one benchmark."""
    node = Node(whole, f"params:{name}", f"{name}.parameters", name="parameters", tags="parameters", namespace=name)
    return Pipeline([node])
