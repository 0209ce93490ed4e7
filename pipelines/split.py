"""split: draw a manifest, validate it, admit it; the report is kept also where the manifest is refused."""

from kedro.pipeline import Node, Pipeline

from ltpipe.data.expectations import validate
from ltpipe.data.split import admit, draw


def create(name: str) -> Pipeline:
    """The stage of one benchmark."""
    candidate, validation = f"{name}.candidate", f"{name}.validation"
    tags = ["split", "data"]
    return Pipeline(
        [
            Node(draw, [f"{name}.index", f"params:{name}.split"], candidate, name="draw", tags=tags, namespace=name),
            Node(
                validate,
                [candidate, f"{name}.index", f"params:{name}.expect"],
                [validation, f"{name}.validation_page"],
                name="validate",
                tags=tags,
                namespace=name,
            ),
            Node(admit, [candidate, validation], f"{name}.manifest", name="admit", tags=tags, namespace=name),
        ]
    )
