"""fetch: the source's images, an index of them, and the notice of their licence."""

from kedro.pipeline import Node, Pipeline

from ltpipe.data.fetch import fetch


def create(name: str) -> Pipeline:
    """The stage of one benchmark."""
    outputs = [f"{name}.index", f"{name}.images", f"{name}.notice"]
    tags = ["fetch", "data"]
    return Pipeline([Node(fetch, f"params:{name}.source", outputs, name="fetch", tags=tags, namespace=name)])
