"""fetch: get the source's files, and write an index of its images and the notice of their licence."""

from kedro.pipeline import Node, Pipeline

from ltpipe.data.fetch import fetch


def create(name: str, source: str) -> Pipeline:
    """Return the stage of one benchmark. source: name of the source; benchmarks of one source share its raw files."""
    inputs, outputs = [f"params:{name}.source", f"raw_{source}"], [f"{name}.index", f"{name}.notice"]
    return Pipeline([Node(fetch, inputs, outputs, name="fetch", tags=["fetch", "data"], namespace=name)])
