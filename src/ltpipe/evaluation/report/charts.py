"""Draw what compares runs: groups, recall against class size, training curves, and the long tail of a split.

summaries: see `ltpipe.evaluation.summary`. runs: run -> its cells.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ltpipe.evaluation.headline import Headline
from ltpipe.evaluation.report.cells import Cells, measured_runs
from ltpipe.evaluation.report.style import GROUP_COLOURS, Mark, Panel, marks, png
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table

POINTS = 30  # of a line of recall against class size: neighbouring classes are averaged if there are more
CURVES = {"loss": "training loss", "val_macro_recall": "validation recall, mean of classes, %"}


def sheets(
    summaries: Sequence[Mapping[str, Any]], runs: Mapping[str, Cells], shown: Sequence[Headline]
) -> dict[str, bytes]:
    """Return file name -> PNG of the pictures that the text shows."""
    return {
        "groups.png": png([group_panel(summaries, headline) for headline in shown]),
        "classes.png": png([class_panel(runs, headline.protocol) for headline in shown]),
    }


def group_panel(summaries: Sequence[Mapping[str, Any]], headline: Headline) -> Panel:
    """Return the headline metric of all classes and of each group that has images, side by side for each run."""
    measured = [s for s in summaries if headline.path in s["metrics"]]
    parts = [p for p in ("all", *GROUPS) if any(_path(headline, p) in s["metrics"] for s in measured)]
    look = marks([summary["run"] for summary in summaries])
    alt = f"{headline.protocol}: {headline.metric} of {', '.join(parts)}, mean and standard deviation over seeds"
    draw = partial(_draw_groups, summaries=measured, headline=headline, parts=parts, look=look)
    return Panel(alt, draw, height=3.6 + 0.2 * (len(measured) // 2))


def _path(headline: Headline, part: str) -> str:
    return f"{headline.protocol}.{headline.metric}.{part}"


def _draw_groups(
    figure: Any,
    summaries: Sequence[Mapping[str, Any]],
    headline: Headline,
    parts: Sequence[str],
    look: Mapping[str, Mark],
) -> None:
    axis = figure.subplots()
    for number, summary in enumerate(summaries):
        values = [(x, summary["metrics"].get(_path(headline, part))) for x, part in enumerate(parts)]
        present = [(x, value) for x, value in values if value is not None]
        mark = look[summary["run"]]
        axis.errorbar(
            # the marks of all runs share a width of 0.7 around the tick
            [x + (number + 0.5) * 0.7 / len(summaries) - 0.35 for x, _ in present],
            [value["mean"] for _, value in present],
            yerr=[value["std"] or 0.0 for _, value in present],
            **{"color": mark.colour, "marker": mark.marker, "linestyle": "none", "capsize": 3, "label": summary["run"]},
        )
    axis.set(title=headline.protocol, ylabel=f"{headline.metric}, %", xticks=range(len(parts)), xticklabels=parts)
    axis.grid(axis="y")
    _legend(figure, len(summaries))


def class_panel(runs: Mapping[str, Cells], protocol: str) -> Panel:
    """Return the recall of the classes against their training images, a line for each run."""
    measured = measured_runs(runs, protocol)
    alt = f"{protocol}: recall of the classes against their number of training images, for {', '.join(measured)}"
    draw = partial(_draw_classes, runs=runs, measured=measured, protocol=protocol)
    return Panel(alt, draw, height=3.6 + 0.2 * (len(measured) // 2))


def _draw_classes(figure: Any, runs: Mapping[str, Cells], measured: Sequence[str], protocol: str) -> None:
    axis, look = figure.subplots(), marks(list(runs))
    for run in measured:
        images = np.array([row["train_images"] for row in runs[run].tables(protocol)[0]])
        x, y = pool(images, runs[run].recall(protocol).mean(axis=0), POINTS)
        mark = look[run]
        axis.plot(x, y, color=mark.colour, marker=mark.marker, linestyle=mark.dashes, markersize=4, label=run)
    axis.set(title=protocol, xlabel="training images of the class", ylabel="recall, %", xscale="log", ylim=(0, 101))
    plain_numbers(axis.xaxis)
    axis.grid()
    _legend(figure, len(measured))


def plain_numbers(axis: Any) -> None:
    """Write 10 and 1,000 at a logarithmic axis, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def pool(x: np.ndarray, y: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x, ascending, and y; more than `points` neighbours are averaged to so many. x, y: C."""
    order = np.argsort(x, kind="stable")
    parts = np.array_split(order, min(points, len(order)))
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def _legend(figure: Any, entries: int, columns: int = 2) -> None:
    figure.legend(loc="outside lower center", ncols=columns if entries > 1 else 1, fontsize=10)


def training_panels(runs: Mapping[str, Cells]) -> list[Panel]:
    """Return the training curves, a panel for each column that the logs have: mean over seeds and a band of one std."""
    present = [column for column in CURVES if any(column in log for cells in runs.values() for log in cells.logs)]
    return [
        Panel(
            f"{CURVES[column]} by epoch, mean and standard deviation over seeds",
            partial(_draw_curves, runs=runs, column=column),
            height=3.6 + 0.2 * (len(runs) // 2),
        )
        for column in present
    ]


def _draw_curves(figure: Any, runs: Mapping[str, Cells], column: str) -> None:
    axis, look, drawn = figure.subplots(), marks(list(runs)), 0
    for run, cells in runs.items():
        logs = [log for log in cells.logs if column in log]
        if not logs:  # the run trains nothing
            continue
        epochs, values = curve(logs, column)
        mean, mark = values.mean(axis=0), look[run]
        axis.plot(epochs, mean, color=mark.colour, linestyle=mark.dashes, linewidth=1.6, label=run)
        if len(values) > 1:
            std = values.std(axis=0, ddof=1)
            axis.fill_between(epochs, mean - std, mean + std, color=mark.colour, alpha=0.18, linewidth=0)
        drawn += 1
    axis.set(xlabel="epoch", ylabel=CURVES[column])
    axis.grid()
    _legend(figure, drawn)


def curve(logs: Sequence[Table], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the epochs that all seeds have, and the column's values: E, and seeds x E."""
    epochs = sorted(set.intersection(*(set(log["epoch"]) for log in logs)))
    values = [log.drop_duplicates("epoch", keep="last").set_index("epoch")[column].loc[epochs] for log in logs]
    return np.array(epochs), np.array(values, dtype=float)


def tail_panel(rows: Table, split: str) -> Panel:
    """Return the long tail: images of each class of one split, the largest first. rows: the manifest's of the split."""
    sizes = rows.groupby(["label", "group"], observed=True).size().sort_values(ascending=False, kind="stable")
    names = rows.drop_duplicates("label").set_index("label")["class_name"].astype(str)
    draw = partial(
        _draw_tail,
        split=split,
        sizes=sizes.to_numpy(),
        groups=[str(group) for _, group in sizes.index],
        names=[names[label] for label, _ in sizes.index],
    )
    return Panel(f"{split}: images of each class, the largest first, from {sizes.max():,} to {sizes.min():,}", draw)


def _draw_tail(figure: Any, split: str, sizes: np.ndarray, groups: Sequence[str], names: Sequence[str]) -> None:
    axis = figure.subplots()
    for group in _present(groups):
        places = np.flatnonzero(np.array(groups) == group)
        axis.bar(places, sizes[places], width=0.9 if len(sizes) < 100 else 1.0, color=GROUP_COLOURS[group], label=group)
    axis.set(title=f"{split}: {sizes.sum():,} images", ylabel="images of the class", ylim=(0, None))
    if len(sizes) > 200:
        axis.set_yscale("log")
        axis.set_ylim(0.8, None)
    if len(sizes) <= 20:
        axis.set_xticks(range(len(sizes)), [shorten(name) for name in names], rotation=45 if len(sizes) > 10 else 0)
    axis.set_xlabel("class, the largest first")
    axis.grid(axis="y")
    _legend(figure, 3, columns=3)  # not on the bars, which reach the top where the split is balanced


def _present(groups: Iterable[str]) -> list[str]:
    found = set(groups)
    return [group for group in GROUPS if group in found]


def shorten(name: str, length: int = 14) -> str:
    """Return a class's name as short as a tick label must be."""
    return name if len(name) <= length else f"{name[: length - 1]}…"
