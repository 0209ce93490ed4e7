"""split: draw a manifest, validate it, admit it, pack its images; a refused manifest leaves its report and no more."""

from kedro.pipeline import Node, Pipeline

from ltpipe.data.expectations import validate
from ltpipe.data.fetch import pack
from ltpipe.data.split import admit, draw


def create(name: str, source: str) -> Pipeline:
    """The stage of one benchmark. source: names the folder of raw files."""
    candidate, validation = f"{name}.candidate", f"{name}.validation"
    manifest, tags = f"{name}.manifest", ["split", "data"]
    images = [f"params:{name}.source", f"raw_{source}"]
    drawn = [f"{name}.index", *images, f"params:{name}.split"]
    return Pipeline(
        [
            Node(draw, drawn, candidate, name="draw", tags=tags, namespace=name),
            Node(
                validate,
                [candidate, f"raw_{source}", f"params:{name}.expect"],
                [validation, f"{name}.validation_page"],
                name="validate",
                tags=tags,
                namespace=name,
            ),
            Node(admit, [candidate, validation], manifest, name="admit", tags=tags, namespace=name),
            Node(pack, [manifest, *images], f"{name}.images", name="pack", tags=tags, namespace=name),
        ]
    )
