"""fetch: get the source's files, and write an index of its images and the notice of their licence."""

from kedro.pipeline import Node, Pipeline

from ltpipe.data.fetch import fetch
from ltpipe.data.originals import note_contents


def create(name: str, source: str, whole: bool) -> Pipeline:
    """Return the stage of one benchmark.

    source: name of the source; benchmarks of one source share its raw files. whole: training reads whole pictures, so
    that the index has to change with them.
    """
    place = [f"params:{name}.source", f"raw_{source}"]
    index, listed = f"{name}.index", f"{name}.listed"
    found = [listed if whole else index, f"{name}.notice"]
    read = Node(fetch, place, found, name="fetch", tags="fetch", namespace=name)
    note = Node(note_contents, [listed, *place], index, name="note", tags="fetch", namespace=name)
    return Pipeline([read, note] if whole else [read])
