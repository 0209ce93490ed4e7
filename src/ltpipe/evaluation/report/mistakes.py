"""The pictures of the page: images that the first seed of a run gets wrong."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ltpipe.evaluation.report.style import data_uri
from ltpipe.storage.manifest import with_attribute_names
from ltpipe.storage.table import Table

MOST_CONFIDENT = 12
OF_A_CLASS = 4
LARGEST = 96  # pixels of a picture's longer side on the page
TINY = 48  # a picture up to this size is kept as it is: JPEG would blur it


class Mistake(NamedTuple):
    """One image that was classified wrongly."""

    picture: str  # data URI
    true: str
    predicted: str
    confidence: str
    facts: str
    id: str


def wrong_rows(predictions: Table, manifest: Table, split: str) -> Table:
    """Return the wrong predictions for one split, the most confident first, with the images' rows and attributes."""
    rows = predictions[predictions["split"] == split]
    wrong = rows[rows["label"] != rows["predicted"]]
    places = manifest.loc[manifest["split"] == split, ["id", "row"]]
    ordered = wrong.merge(places, on="id").sort_values(["confidence", "id"], ascending=[False, True])
    return with_attribute_names(ordered, manifest)


def share_of_seeds(predictions: Sequence[Table], split: str) -> dict[str, int]:
    """Return id -> the number of seeds that get the image wrong."""
    counts: dict[str, int] = {}
    for table in predictions:
        rows = table[(table["split"] == split) & (table["label"] != table["predicted"])]
        for name in rows["id"]:
            counts[name] = counts.get(name, 0) + 1
    return counts


def make_mistakes(
    wrong: Table, images: np.ndarray, names: Sequence[str], seeds: dict[str, int], total: int
) -> list[Mistake]:
    """Return the mistakes with their pictures. wrong: rows of `wrong_rows`; seeds: of `share_of_seeds`, of `total`."""
    return [
        Mistake(
            picture=encode_picture(images[row["row"]]),
            true=str(names[row["label"]]),
            predicted=str(names[row["predicted"]]),
            confidence=f"{100 * row['confidence']:.1f} %",
            facts=", ".join(filter(None, [_attribute(row), f"wrong in {seeds[row['id']]} of {total} seeds"])),
            id=row["id"],
        )
        for row in wrong.to_dict("records")
    ]


def _attribute(row: Mapping[Any, Any]) -> str:
    return str(row.get("attribute_name", "")) or (f"attribute {row['attribute']}" if row["attribute"] >= 0 else "")


def encode_picture(pixels: np.ndarray) -> str:
    """Return an image, uint8, H x W x 3, as a data URI of at most LARGEST pixels a side."""
    from PIL import Image

    picture, buffer = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    if max(picture.size) <= TINY:
        picture.save(buffer, format="PNG", optimize=True)
        return data_uri("image/png", buffer.getvalue())
    picture.thumbnail((LARGEST, LARGEST))
    picture.save(buffer, format="JPEG", quality=85)
    return data_uri("image/jpeg", buffer.getvalue())
