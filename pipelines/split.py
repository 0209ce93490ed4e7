"""split: draw a manifest, validate it, admit it, pack its images, and write down of what state they are.

If the validation fails, `admit` raises: the validation report is written, the manifest and the images are not. Four
more nodes are there only where they are needed: `trace` finds the whole pictures of the training images, `crops`
measures how sharp random boxes of them are, `pack_pictures` packs them, and `note_packed` notes a digest of the result.
"""

from kedro.pipeline import Node, Pipeline

from ltpipe.data.checks.validate import validate
from ltpipe.data.crops import measure_crops
from ltpipe.data.identity import identify
from ltpipe.data.originals import note_packed, pack_exactly, pack_pictures, trace
from ltpipe.data.pack import pack
from ltpipe.data.split import admit, draw


def create(
    name: str, source: str, index: str, cluster: bool, pictures: str = "squares", crops: bool = False
) -> Pipeline:
    """Return the stage of one benchmark.

    source: name of the source. index: name of the dataset to draw from. cluster: the benchmark has a block `cluster`.
    pictures: source.pictures. crops: random boxes are measured.
    """
    candidate, validation, manifest = f"{name}.candidate", f"{name}.validation", f"{name}.manifest"
    whole = pictures != "squares"
    place = [f"params:{name}.source", f"raw_{source}"]
    blocks = ["source", "split", "expect", *(["cluster"] if cluster else [])]
    described = {"manifest": manifest, "images": f"{name}.images", **{b: f"params:{name}.{b}" for b in blocks}}
    judged = [candidate, f"raw_{source}", f"params:{name}.expect", *([f"{name}.crops"] if crops else [])]
    drawn = f"{name}.drawn" if whole or crops else candidate
    nodes = [
        Node(draw, [index, f"params:{name}.split"], drawn, name="draw", tags="split", namespace=name),
        *(_whole_pictures(name, place, pictures, crops) if whole or crops else []),
        Node(
            validate,
            judged,
            [validation, f"{name}.validation_page"],
            name="validate",
            tags="split",
            namespace=name,
        ),
        Node(admit, [candidate, validation], manifest, name="admit", tags="split", namespace=name),
        Node(
            pack_exactly if whole else pack,
            [manifest, *place],
            f"{name}.images",
            name="pack",
            tags="split",
            namespace=name,
        ),
        Node(identify, described, f"{name}.data_identity", name="identify", tags="split", namespace=name),
    ]
    return Pipeline(nodes)


def _whole_pictures(name: str, place: list[str], pictures: str, crops: bool) -> list[Node]:
    """Return the nodes that find, measure and pack the whole pictures of the training images."""
    candidate, packed = f"{name}.candidate", pictures == "packed"
    traced = f"{name}.traced" if packed else f"{name}.originals"
    found = [f"{name}.drawn", *place]
    settings = [f"params:{name}.{key}" for key in ("source", "schedule.augment.resized_crop", "model.image")]
    boxes = [candidate, traced, *settings]
    measure = Node(measure_crops, boxes, f"{name}.crops", name="crops", tags="split", namespace=name)
    return [
        Node(trace, found, [candidate, traced], name="trace", tags="split", namespace=name),
        *([measure] if crops else []),
        *(_packed_pictures(name, place) if packed else []),
    ]


def _packed_pictures(name: str, place: list[str]) -> list[Node]:
    """Return the nodes that pack the whole pictures, and that write a digest of what was packed into `originals`."""
    traced, packed = f"{name}.traced", [f"{name}.pictures", f"{name}.picture_sizes"]
    # with the manifest, though it is not read: nothing large is packed of a split that was not admitted
    inputs = [f"{name}.manifest", traced, *place]
    return [
        Node(pack_pictures, inputs, packed, name="pack_pictures", tags="split", namespace=name),
        Node(note_packed, [traced, *packed], f"{name}.originals", name="note_packed", tags="split", namespace=name),
    ]
