"""cluster: make attributes by k-means over features; only for benchmarks with a block `cluster`."""

from kedro.pipeline import Node, Pipeline

from ltpipe.clustering.cluster import cluster


def create(name: str, source: str, start: dict[str, str]) -> Pipeline:
    """Return the stage of one benchmark. start: {"checkpoint": dataset of a cell of another benchmark}, or empty."""
    inputs = {
        "index": f"{name}.index",
        "source": f"params:{name}.source",
        "raw": f"raw_{source}",
        "clusters": f"params:{name}.cluster",
        **start,
    }
    return Pipeline([Node(cluster, inputs, f"{name}.clustered", name="cluster", tags="cluster", namespace=name)])
