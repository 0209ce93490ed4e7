"""fetch: get the source's files, and write an index of its images and the notice of their licence."""

from kedro.pipeline import Node, Pipeline

from ltpipe.data.fetch import fetch
from ltpipe.data.originals import note_contents


def create(name: str, source: str, whole: bool) -> Pipeline:
    """Return the stage of one benchmark.

    source: name of the source; benchmarks of one source share its raw files. whole: training reads whole pictures, so
    that the index has to change with them.
    """
    place, tags = [f"params:{name}.source", f"raw_{source}"], ["fetch", "data"]
    index = f"{name}.listed" if whole else f"{name}.index"
    nodes = [Node(fetch, place, [index, f"{name}.notice"], name="fetch", tags=tags, namespace=name)]
    if whole:
        nodes.append(Node(note_contents, [index, *place], f"{name}.index", name="note", tags=tags, namespace=name))
    return Pipeline(nodes)
