"""split: draw a manifest, validate it, admit it, pack its images.

If the validation fails, `admit` raises: the validation report is written, the manifest and the images are not.
"""

from kedro.pipeline import Node, Pipeline

from ltpipe.data.checks.validate import validate
from ltpipe.data.pack import pack
from ltpipe.data.split import admit, draw


def create(name: str, source: str, index: str) -> Pipeline:
    """Return the stage of one benchmark. source: name of the source. index: name of the dataset to draw from."""
    candidate, validation = f"{name}.candidate", f"{name}.validation"
    manifest, tags = f"{name}.manifest", ["split", "data"]
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
        ]
    )
