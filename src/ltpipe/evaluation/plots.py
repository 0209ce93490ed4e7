"""Draw the report's figures as PNG; the same numbers give the same bytes.

details: what `measure` returns for the figures of each cell. by_run: run -> the details of its seeds.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltpipe.evaluation.headline import Headline, headlines
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table

CELLS = 400  # rows and columns of a drawn confusion matrix: about as many as a plot has pixels


def render(
    summaries: Sequence[Mapping[str, Any]], details: Sequence[Mapping[str, Any]], logs: Mapping[str, Table]
) -> dict[str, bytes]:
    """Return file name -> PNG of every figure. logs: cell -> training log."""
    from matplotlib.figure import Figure  # not pyplot, which keeps global state and looks for a display

    by_run: dict[str, list[Mapping[str, Any]]] = {}
    for detail in details:
        by_run.setdefault(detail["cell"].split(".")[1], []).append(detail)
    figures = {
        "groups.png": _draw_groups(Figure, summaries, headlines(details)),
        "classes.png": _draw_classes(Figure, by_run),
        "confusion.png": _draw_confusion(Figure, by_run),
        "reliability.png": _draw_reliability(Figure, by_run),
        "training.png": _draw_training(Figure, logs),
    }
    return {name: _encode_png(figure) for name, figure in figures.items()}


def _encode_png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    # matplotlib writes its version into the file unless told otherwise
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _subplots(
    figure_class: Any, rows: int, columns: int, width: float = 4.2, height: float = 3.4
) -> tuple[Any, np.ndarray]:
    """Return a figure and its axes, rows x columns; width and height of one plot in inches."""
    figure = figure_class(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _legend(figure: Any) -> None:
    """Draw one legend for all axes, outside them: inside there is no room for the names of 20 methods."""
    shown: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    figure.legend(shown.values(), shown.keys(), fontsize=6, loc="outside right upper")
    # as high as the legend needs: 0.16 inches a line at font size 6
    figure.set_figheight(max(figure.get_figheight(), 0.16 * len(shown)))


def _protocols(by_run: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the protocols of all cells, in the order in which they first occur."""
    return list(dict.fromkeys(p for cells in by_run.values() for cell in cells for p in cell["protocols"]))


def _draw_groups(figure_class: Any, summaries: Sequence[Mapping[str, Any]], shown: Sequence[Headline]) -> Any:
    """Draw the headline metric of each frequency group: bars are means over seeds, whiskers standard deviations."""
    figure, axes = _subplots(figure_class, 1, len(shown), width=5.0)
    for axis, headline in zip(axes[0], shown, strict=True):
        named = f"{headline.protocol}.{headline.metric}"
        for number, summary in enumerate(summaries):
            metrics = [(x, summary["metrics"].get(f"{named}.{g}")) for x, g in enumerate(("all", *GROUPS))]
            present = [(x, m) for x, m in metrics if m is not None]
            if not present:  # the run is not evaluated by this protocol
                continue
            # the bars of all runs share a width of 0.8 around the tick
            places = [x + (number + 0.5) * 0.8 / len(summaries) - 0.4 for x, _ in present]
            axis.bar(
                places,
                [m["mean"] for _, m in present],
                width=0.8 / len(summaries),
                yerr=[m["std"] or 0.0 for _, m in present],
                color=f"C{number % 10}",
                label=summary["run"],
            )
        axis.set(title=headline.protocol, ylabel=f"{headline.metric}, %", ylim=(0, 100))
        axis.set(xticks=range(4), xticklabels=("all", *GROUPS))
    _legend(figure)
    return figure


def _draw_classes(figure_class: Any, by_run: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Draw the recall of each class, mean over seeds, against its number of training images."""
    protocols = _protocols(by_run)
    figure, axes = _subplots(figure_class, 1, len(protocols))
    for axis, protocol in zip(axes[0], protocols, strict=True):
        for run, cells in by_run.items():
            tables = [cell["protocols"][protocol]["classes"] for cell in cells if protocol in cell["protocols"]]
            if tables:
                images = [row["train_images"] for row in tables[0]]
                recall = np.mean([[row["recall"] for row in table] for table in tables], axis=0)
                axis.plot(images, recall, marker="o", markersize=3, label=run)
        axis.set(title=protocol, xlabel="training images of the class", ylabel="recall, %", xscale="log", ylim=(0, 101))
    _legend(figure)
    return figure


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


def _draw_confusion(figure_class: Any, by_run: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Draw which share of each class's images is predicted as which class, over all seeds."""
    panels = [
        (f"{run} {protocol}", [cell["protocols"][protocol]["confusion"] for cell in cells], len(cells[0]["classes"]))
        for protocol in _protocols(by_run)
        for run, cells in by_run.items()
        if protocol in cells[0]["protocols"]
    ]
    columns = min(len(panels), 6)
    # -(-a // b) rounds up
    figure, axes = _subplots(figure_class, -(-len(panels) // columns), columns, width=2.6, height=2.6)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, counts, classes) in zip(axes.flat, panels, strict=False):
        total, edge = confusion_matrix(counts, classes), classes - 0.5
        share = total / np.maximum(total.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="magma", vmin=0, vmax=1, extent=(-0.5, edge, edge, -0.5))  # in classes, also if pooled
        axis.set(xlabel="predicted", ylabel="label")
        axis.set_title(title, fontsize=8)
    return figure


def _draw_reliability(figure_class: Any, by_run: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Draw accuracy against confidence, all seeds; on the diagonal the confidence is the probability of being right."""
    protocols = _protocols(by_run)
    figure, axes = _subplots(figure_class, 1, len(protocols))
    for axis, protocol in zip(axes[0], protocols, strict=True):
        axis.plot([0, 100], [0, 100], color="0.7", linewidth=1)
        for run, cells in by_run.items():
            bins = [
                b for cell in cells if protocol in cell["protocols"] for b in cell["protocols"][protocol]["reliability"]
            ]
            bins.sort(key=lambda b: b["confidence"])
            axis.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], ".", markersize=4, label=run)
        axis.set(title=protocol, xlabel="confidence, %", ylabel="accuracy, %")
    _legend(figure)
    return figure


def _draw_training(figure_class: Any, logs: Mapping[str, Table]) -> Any:
    """Draw loss and validation accuracy by epoch, a line for each cell; a run that trains nothing has no line."""
    figure, axes = _subplots(figure_class, 1, 2, width=5.0)
    colours = {run: f"C{i % 10}" for i, run in enumerate(dict.fromkeys(cell.split(".")[1] for cell in logs))}
    for cell, log in logs.items():
        run = cell.split(".")[1]
        for axis, column in zip(axes[0], ("loss", "val_accuracy"), strict=True):
            if column in log:
                axis.plot(log["epoch"], log[column], color=colours[run], linewidth=0.8, label=run)
                axis.set(xlabel="epoch", ylabel=column)
    _legend(figure)
    return figure
