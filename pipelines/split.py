"""split: draw a manifest, validate it, admit it, pack its images, and write down of what state they are.

If the validation fails, `admit` raises: the validation report is written, the manifest and the images are not.
"""

from kedro.pipeline import Node, Pipeline

from ltpipe.data.checks.validate import validate
from ltpipe.data.identity import identify
from ltpipe.data.pack import pack
from ltpipe.data.split import admit, draw


def create(name: str, source: str, index: str, cluster: bool) -> Pipeline:
    """Return the stage of one benchmark.

    source: name of the source. index: name of the dataset to draw from. cluster: the benchmark has a block `cluster`.
    """
    candidate, validation = f"{name}.candidate", f"{name}.validation"
    manifest, tags = f"{name}.manifest", ["split", "data"]
    blocks = ["source", "split", "expect", *(["cluster"] if cluster else [])]
    drawn = {"manifest": manifest, "images": f"{name}.images", **{block: f"params:{name}.{block}" for block in blocks}}
    return Pipeline(
        [
            Node(draw, [index, f"params:{name}.split"], candidate, name="draw", tags=tags, namespace=name),
            Node(
                validate,
                [candidate, f"raw_{source}", f"params:{name}.expect"],
                [validation, f"{name}.validation_page"],
                name="validate",
                tags=tags,
                namespace=name,
            ),
            Node(admit, [candidate, validation], manifest, name="admit", tags=tags, namespace=name),
            Node(
                pack,
                [manifest, f"params:{name}.source", f"raw_{source}"],
                f"{name}.images",
                name="pack",
                tags=tags,
                namespace=name,
            ),
            Node(identify, drawn, f"{name}.data_identity", name="identify", tags=tags, namespace=name),
        ]
    )
