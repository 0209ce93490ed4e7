"""How sharp training's random boxes are: source pixels per output pixel, of the data as they are and of whole pictures.

A box of w x h pixels that is resized to n x n has sqrt(w h) / n source pixels per output pixel, in one direction. Below
1 it is enlarged, hence blurred; tests are not. Boxes are drawn here as torchvision's RandomResizedCrop draws them.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from ltpipe.data.originals import packed_sizes
from ltpipe.data.source import Source
from ltpipe.storage.table import Table

TRIES = 10
RATIO = (3 / 4, 4 / 3)  # smallest and largest width / height
DRAWS = 100_000  # boxes that are drawn, if there are not more pictures than that
SEED = 0

log = logging.getLogger("ltpipe.data")


def draw_boxes(sizes: np.ndarray, area: Sequence[float], random: np.random.RandomState) -> np.ndarray:
    """Return width and height of a random box in each picture, N x 2. sizes: width and height, N x 2; area: shares."""
    wide, high = sizes[:, 0], sizes[:, 1]
    # if no try fits: the whole picture, cut to the nearest ratio that is allowed
    boxes = np.stack([np.minimum(wide, np.rint(high * RATIO[1])), np.minimum(high, np.rint(wide / RATIO[0]))], axis=1)
    waiting = np.arange(len(sizes))
    for _ in range(TRIES):
        pixels = sizes[waiting].prod(axis=1) * random.uniform(area[0], area[1], len(waiting))
        ratio = np.exp(random.uniform(np.log(RATIO[0]), np.log(RATIO[1]), len(waiting)))
        tried = np.rint(np.sqrt(np.stack([pixels * ratio, pixels / ratio], axis=1)))
        fits = ((tried > 0) & (tried <= sizes[waiting])).all(axis=1)
        boxes[waiting[fits]] = tried[fits]
        waiting = waiting[~fits]
    return boxes


def sharpness(sizes: np.ndarray, source: Source, area: Sequence[float], image: int) -> np.ndarray:
    """Return source pixels per output pixel of random boxes. sizes: of the whole pictures, N x 2; image: output."""
    sizes = np.repeat(sizes, max(1, -(-DRAWS // len(sizes))), axis=0)
    enlarged = np.ones(len(sizes))
    if source.pictures == "squares":
        # a square of a smaller picture was enlarged when it was packed
        enlarged = np.minimum(1, sizes.min(axis=1) / source.size)
        sizes = np.full_like(sizes, source.size)
    elif source.shorter_side is not None:
        sizes = packed_sizes(sizes, source.shorter_side)
    boxes = draw_boxes(sizes, area, np.random.RandomState(SEED))
    ratio: np.ndarray = enlarged * np.sqrt(boxes.prod(axis=1)) / image
    return ratio


def summarise(sizes: np.ndarray, source: Source, area: Sequence[float], image: int) -> dict[str, float]:
    """Return the share of enlarged boxes and the median of source pixels per output pixel; of whole pictures too."""
    whole = source.model_copy(update={"pictures": "files", "shorter_side": None})
    facts: dict[str, float] = {}
    for name, taken in (("", source), ("_whole", whole)):
        ratio = sharpness(sizes, taken, area, image)
        facts |= {
            f"upsampled{name}": round(float((ratio < 1).mean()), 4),
            f"median{name}": round(float(np.median(ratio)), 3),
        }
    return facts


def measure_crops(
    candidate: Table, originals: Table, source: Source, area: Sequence[float], image: int
) -> dict[str, dict[str, Any]]:
    """Return `summarise` of each training split. area: augment.resized_crop; image: model.image."""
    sizes = originals.set_index("row")[["width", "height"]]
    result = {}
    for split, rows in candidate[candidate["role"] == "train"].groupby("split"):
        facts = summarise(sizes.loc[rows["row"]].to_numpy(), source, area, image)
        log.info(
            "crops of %s from %s: %.1f %% are upsampled, median %.2f source pixels per output pixel (whole pictures: "
            "%.1f %%, %.2f)", split, source.pictures, 100 * facts["upsampled"], facts["median"],
            100 * facts["upsampled_whole"], facts["median_whole"],
        )  # fmt: skip
        result[str(split)] = facts
    return result
