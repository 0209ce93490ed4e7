"""Stage `evaluate`, second half: metrics from predictions alone. Every rate is in percent.

accuracy    correct / images (micro); on a class-balanced test set the mean of the classes' recalls
precision   mean over the classes present of TP / predicted; a class that is never predicted contributes 0 and stays in
            the mean (Tang et al., ECCV 2022). Of a frequency group: the sum over its classes, divided by their number,
            predictions counted on the whole test set, so that groups combine to the whole. Of an attribute: inside the
            images of that attribute alone, so that attributes do not combine.
f1          harmonic mean of accuracy and precision (not the mean of the classes' F1)
An empty group is absent, never 0.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.evaluation.metrics.calibration import ece, reliability
from ltpipe.recipe.run import Run
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table


class Protocol(Spec):
    """A training split and the test split that judges it, e.g. CLT = (Train-GLT, Test-CBL)."""

    train: str
    test: str


class Evaluation(Spec):
    """The protocols of a benchmark, by name."""

    protocols: dict[str, Protocol] = Field(min_length=1)


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Correct / images, in percent; labels, predicted: N."""
    return 100 * float((labels == predicted).mean())


def class_precision(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """TP / predicted of each class, 0..1, C; 0 for a class that is never predicted."""
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    return hits / np.maximum(np.bincount(predicted, minlength=classes), 1)


def precision(labels: np.ndarray, predicted: np.ndarray, classes: int, among: np.ndarray | None = None) -> float:
    """Mean of `class_precision` over the classes present in labels (or in `among`, a subset of labels), in percent."""
    present = np.unique(labels if among is None else among)
    return 100 * float(class_precision(labels, predicted, classes)[present].mean())


def f1(accuracy: float, precision: float) -> float:
    """Harmonic mean; 0 where both are 0."""
    return 2 * accuracy * precision / (accuracy + precision) if accuracy + precision else 0.0


def of_split(rows: Table, classes: int) -> dict[str, Any]:
    """All metrics of one test split; rows: label, predicted, confidence, group, attribute."""
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    found: dict[str, Any] = {
        "n": len(rows),
        "accuracy": {"all": accuracy(y, p)},
        "precision": {"all": precision(y, p, classes)},
        "ece": ece(rows["confidence"].to_numpy(), y == p),
    }
    for group in GROUPS:
        member = (rows["group"] == group).to_numpy()
        if member.any():
            found["accuracy"][group] = accuracy(y[member], p[member])
            found["precision"][group] = precision(y, p, classes, among=y[member])
    for rank in sorted(r for r in rows["attribute"].unique() if r >= 0):
        member = (rows["attribute"] == rank).to_numpy()
        found["accuracy"][f"attribute{rank}"] = accuracy(y[member], p[member])
        found["precision"][f"attribute{rank}"] = precision(y[member], p[member], classes)
    return found | {"f1": f1(found["accuracy"]["all"], found["precision"]["all"])}


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Images by (label, predicted), C x C, int64."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _details(rows: Table, facts: Mapping[str, Any]) -> dict[str, Any]:
    classes = len(facts["classes"])
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    matrix = confusion(y, p, classes)
    groups = rows.drop_duplicates("label").set_index("label")["group"]
    per_class = [
        {
            "label": c,
            "class": facts["classes"][c],
            "group": groups[c],
            "train_images": facts["classes_counts"][c],
            "n": int(matrix[c].sum()),
            "recall": 100 * float(matrix[c, c] / matrix[c].sum()),
            "precision": 100 * float(class_precision(y, p, classes)[c]),
        }
        for c in sorted(groups.index)
    ]
    bins = reliability(rows["confidence"].to_numpy(), y == p)
    return {"classes": per_class, "confusion": matrix.tolist(), "reliability": bins}


def measure(predictions: Table, evaluation: Evaluation, run: Run) -> tuple[dict[str, Any], dict[str, Any], Table]:
    """Metrics of every protocol whose training split is the run's; details for plots; recall by class as a table.

    The model's provenance travels in predictions.attrs["facts"] and into the metrics.
    """
    import pandas as pd

    facts = predictions.attrs["facts"]
    chosen = {name: p.test for name, p in evaluation.protocols.items() if p.train == run.split}
    if not chosen:
        valid = sorted({p.train for p in evaluation.protocols.values()})
        raise Refused(f"no protocol trains on {run.split!r}; protocols train on: {', '.join(valid)}")
    metrics = {k: facts[k] for k in ("cell", "seed", "data", "code", "provider")} | {"protocols": {}}
    details: dict[str, Any] = {"cell": facts["cell"], "classes": facts["classes"], "protocols": {}}
    for name, test in chosen.items():
        rows = predictions[predictions["split"] == test]
        if rows.empty:
            raise Refused(f"protocol {name}: the manifest has no image in split {test!r}")
        metrics["protocols"][name] = of_split(rows, len(facts["classes"]))
        details["protocols"][name] = _details(rows, facts)
    tables = [pd.DataFrame(d["classes"]).assign(protocol=name) for name, d in details["protocols"].items()]
    return metrics, details, pd.concat(tables, ignore_index=True)


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, float]:
    """Numbers of a nested dict by dotted path: {"clt": {"accuracy": {"all": 90}}} -> {"clt.accuracy.all": 90}."""
    flat: dict[str, float] = {}
    for key, value in tree.items():
        here = f"{path}.{key}" if path else str(key)
        flat |= flatten(value, here) if isinstance(value, Mapping) else {here: value}
    return flat
