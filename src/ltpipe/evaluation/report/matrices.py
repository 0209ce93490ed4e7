"""Draw what is shown of one run alone: its confusion matrix and its reliability."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ltpipe.evaluation.metrics.ece import BINS
from ltpipe.evaluation.report.cells import Cells
from ltpipe.evaluation.report.charts import shorten
from ltpipe.evaluation.report.style import FLAT, GRID, INK, Panel, fading

CELLS = 400  # rows and columns of a drawn confusion matrix: about as many as a plot has pixels
NUMBERED = 12  # with more classes there is no room for a number in each field
NAMED = 40  # nor, with more than these, for names at the axes


def confusion_matrix(counts: Sequence[Mapping[str, Sequence[int]]], classes: int) -> np.ndarray:
    """Return the images of each (label, predicted) pair, summed over the seeds' `counts`; C x C, int64.

    More than CELLS classes are pooled: neighbouring classes share a row and a column. A plot is no larger in pixels,
    and all pairs of 8,142 classes would need half a GB.
    """
    side = min(classes, CELLS)
    matrix = np.zeros((side, side), dtype=np.int64)
    for cell in counts:
        label, predicted = (np.asarray(cell[key], dtype=np.int64) * side // classes for key in ("label", "predicted"))
        np.add.at(matrix, (label, predicted), cell["n"])
    return matrix


def confusion_panel(run: str, cells: Cells, protocol: str) -> Panel:
    """Return which share of each class's images is predicted as which class, over all seeds."""
    names = [str(name) for name in cells.details[0]["classes"]]
    counts = [d["protocols"][protocol]["confusion"] for d in cells.details if protocol in d["protocols"]]
    total = confusion_matrix(counts, len(names))
    share = 100 * total / np.maximum(total.sum(axis=1, keepdims=True), 1)
    draw = partial(_draw_confusion, title=f"{run}, {protocol}", share=share, names=names)
    return Panel(f"{run}, {protocol}: share of each class's images that is predicted as each class", draw, 5.2, 4.6)


def _draw_confusion(figure: Any, title: str, share: np.ndarray, names: Sequence[str]) -> None:
    axis, edge = figure.subplots(), len(names) - 0.5
    # in classes, also if several are pooled
    extent = (-0.5, edge, edge, -0.5)
    image = axis.imshow(share, cmap=fading(), vmin=0, vmax=100, extent=extent, interpolation="nearest")
    bar = figure.colorbar(image, ax=axis, shrink=0.85)
    bar.set_label("% of the class's images")
    axis.set(title=title, xlabel="predicted class", ylabel="true class")
    if len(names) <= NAMED:
        ticks = [shorten(name, 12) for name in names]
        small = {"fontsize": 10 if len(names) <= NUMBERED else 6}
        axis.set_xticks(range(len(names)), ticks, rotation=90 if max(map(len, ticks)) > 2 else 0, **small)
        axis.set_yticks(range(len(names)), ticks, **small)
    if len(names) <= NUMBERED:
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.5:
                colour = "#ffffff" if value > 55 else INK
                axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=9)


def merge_bins(bins: Sequence[Mapping[str, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return images and correct images of each bin of the confidence, BINS each; bins: of all seeds."""
    images, correct = np.zeros(BINS), np.zeros(BINS)
    for entry in bins:
        # the mean confidence of a bin lies inside it; a bin includes its upper edge
        place = int(np.clip(np.ceil(entry["confidence"] / 100 * BINS - 1e-9) - 1, 0, BINS - 1))
        images[place] += entry["n"]
        correct[place] += entry["n"] * entry["accuracy"] / 100
    return images, correct


def reliability_panel(run: str, cells: Cells, protocol: str) -> Panel:
    """Return accuracy by bins of the confidence, all seeds together, with the images of each bin below."""
    shown = [d["protocols"][protocol]["reliability"] for d in cells.details if protocol in d["protocols"]]
    images, correct = merge_bins([entry for bins in shown for entry in bins])
    draw = partial(_draw_reliability, title=f"{run}, {protocol}", images=images, correct=correct, seeds=len(shown))
    return Panel(f"{run}, {protocol}: accuracy by confidence, with the number of images of each bin", draw, 5.2, 4.6)


def _draw_reliability(figure: Any, title: str, images: np.ndarray, correct: np.ndarray, seeds: int) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width = 100 / BINS
    middle = width * (np.arange(BINS) + 0.5)
    filled = images > 0
    above.bar(middle[filled], 100 * correct[filled] / images[filled], width=0.92 * width, color=FLAT)
    above.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle="--", label="as right as it is sure")
    above.set(title=title, ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 101))
    above.legend(loc="upper left", fontsize=10)
    below.bar(middle, images / seeds, width=0.92 * width, color=GRID, edgecolor=INK, linewidth=0.6)
    below.set(xlabel="confidence, %", ylabel="images\nof a seed")
    above.grid(axis="y")
