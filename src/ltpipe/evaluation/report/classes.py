"""What happened to each class: against the accepted baseline, and which ones are worst."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ltpipe.evaluation.baseline import AcceptedRun, unpack_bits
from ltpipe.evaluation.measure import Evaluation
from ltpipe.evaluation.report.cells import Cells
from ltpipe.evaluation.report.numbers import NONE, number, number_of
from ltpipe.evaluation.report.recommend import Advice
from ltpipe.evaluation.report.tables import Grid
from ltpipe.storage.table import Table

SHOWN = 10
SAME = 0.005  # a smaller change reads 0.00


class ClassRow(NamedTuple):
    """One class of one run and protocol; recalls in percent, means over seeds. accepted: None if not known."""

    label: int
    name: str
    group: str
    train_images: int
    n: int
    recall: float
    std: float | None
    accepted: float | None
    taken_for: str  # the class that most of its wrong images are predicted as, with their share

    @property
    def change(self) -> float | None:
        """The recall minus the accepted one."""
        return None if self.accepted is None else self.recall - self.accepted


def accepted_recall(accepted: AcceptedRun, test: Table, split: str) -> dict[int, float]:
    """Return label -> recall when it was accepted, mean over its seeds. test: the manifest's rows of the split."""
    labels = test.sort_values("id")["label"].to_numpy()  # the order in which the baseline keeps its bits
    bits = [unpack_bits(seed.correct[split], len(labels)) for seed in accepted.seeds.values()]
    share = np.mean(bits, axis=0)
    return {int(label): 100 * float(share[labels == label].mean()) for label in np.unique(labels)}


def class_rows(cells: Cells, protocol: str, before: Mapping[int, float]) -> list[ClassRow]:
    """Return a row for each class that has test images. before: label -> accepted recall; empty if there is none."""
    recall = cells.recall(protocol)
    std = recall.std(axis=0, ddof=1) if len(recall) > 1 else [None] * recall.shape[1]
    wrong = _taken_for(cells, protocol)
    return [
        ClassRow(
            label=row["label"],
            name=str(row["class"]),
            group=row["group"],
            train_images=row["train_images"],
            n=row["n"],
            recall=float(mean),
            std=None if spread is None else float(spread),
            accepted=before.get(row["label"]),
            taken_for=wrong.get(row["label"], NONE),
        )
        for row, mean, spread in zip(cells.tables(protocol)[0], recall.mean(axis=0), std, strict=True)
    ]


def _taken_for(cells: Cells, protocol: str) -> dict[int, str]:
    """Return label -> the most frequent wrong prediction over all seeds, and its share of the class's images."""
    images: dict[int, int] = {}
    wrong: dict[tuple[int, int], int] = {}
    for details in cells.details:
        counts = details["protocols"][protocol]["confusion"]
        for label, predicted, n in zip(counts["label"], counts["predicted"], counts["n"], strict=True):
            images[label] = images.get(label, 0) + n
            if label != predicted:
                wrong[label, predicted] = wrong.get((label, predicted), 0) + n
    names, found = cells.details[0]["classes"], {}
    for (label, predicted), n in sorted(wrong.items(), key=lambda item: (item[1], item[0])):
        found[label] = f"{names[predicted]} ({100 * n / images[label]:.0f} %)"
    return found


def recalls(runs: Mapping[str, Cells], evaluation: Evaluation, advice: Advice, state: str) -> dict[str, Any]:
    """Return what a pull request's comment draws of classes, as JSON values.

    recall: run -> protocol -> label -> mean over seeds, in percent. recommended, model (its path below the folder of
    data): None if nothing was selected. state: digest of what was judged. splits: protocol -> test split. names:
    label -> class.
    """
    names = next(iter(runs.values())).details[0]["classes"]
    return {
        "state": state,
        "recommended": advice.run if advice.selected else None,
        "model": advice.model,
        "splits": {name: protocol.test for name, protocol in evaluation.protocols.items()},
        "names": {str(label): str(name) for label, name in enumerate(names)},
        "recall": {
            run: {p: _mean_recall(cells, p) for p in evaluation.protocols if cells.tables(p)}
            for run, cells in runs.items()
        },
    }


def _mean_recall(cells: Cells, protocol: str) -> dict[str, float]:
    labels = [row["label"] for row in cells.tables(protocol)[0]]
    means = cells.recall(protocol).mean(axis=0)
    return {str(label): round(float(mean), 4) for label, mean in zip(labels, means, strict=True)}


def worst(rows: Sequence[ClassRow]) -> list[ClassRow]:
    """Return the ten classes with the lowest recall."""
    return sorted(rows, key=lambda row: (row.recall, row.label))[:SHOWN]


def change_grid(by_run: Mapping[str, Sequence[ClassRow]]) -> Grid:
    """Return the ten largest changes of each run, either way; classes that did not change are left out."""
    rows = []
    for run, classes in by_run.items():
        changed = [row for row in classes if row.change is not None and abs(row.change) >= SAME]
        for row in sorted(changed, key=lambda row: (-abs(row.change or 0.0), row.label))[:SHOWN]:
            numbers = [number(row.accepted), number(row.recall), number(row.change, sign=True)]
            rows.append([run, row.name, row.group, number_of(row.train_images), number_of(row.n), *numbers])
    return Grid(["run", "class", "group", "training images", "test images", "accepted", "measured", "change"], rows)


def describe_change(by_run: Mapping[str, Sequence[ClassRow]]) -> str:
    """Return one sentence: how many classes of how many runs rose and fell."""
    changes = [row.change for rows in by_run.values() for row in rows if row.change is not None]
    if not changes:
        return "The accepted baseline holds no answers for these runs and these data, so no class can be compared."
    fell, rose = sum(change <= -SAME for change in changes), sum(change >= SAME for change in changes)
    runs = sum(any(row.change is not None for row in rows) for rows in by_run.values())
    return (
        f"Of {len(changes):,} classes of {runs} run{'s' * (runs != 1)}, {fell:,} fell, {rose:,} rose and "
        f"{len(changes) - fell - rose:,} are as they were accepted."
    )


def _describe_row(row: ClassRow) -> str:
    if row.change is None:
        return ""
    return "as accepted" if abs(row.change) < SAME else f"{number(row.change, sign=True)} points since accepted"


def worst_texts(row: ClassRow) -> dict[str, Any]:
    """Return the row's texts for the page."""
    return {
        "name": row.name,
        "facts": f"{row.group}, {row.train_images:,} training images",
        "recall": f"{number(row.recall)} ± {number(row.std)} %" if row.std is not None else f"{number(row.recall)} %",
        "accepted": _describe_row(row),
        "taken_for": row.taken_for,
    }
