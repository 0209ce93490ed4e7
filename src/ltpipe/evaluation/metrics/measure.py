"""Second half of the stage `evaluate`: metrics from predictions alone. Every rate is in percent.

accuracy    correct images / images (micro average); on a class-balanced test set the mean recall of the classes.
precision   mean of TP / predicted over the classes that have test images. A class that is never predicted counts as 0
            and stays in the mean (Tang et al., ECCV 2022).
            Of a frequency group: the mean over its classes, with predictions counted on the whole test set; so the
            groups, weighted by their numbers of classes, add up to the precision of all classes.
            Of an attribute: within the images of that attribute; so the attributes do not add up.
f1          harmonic mean of accuracy and precision (not the mean of the classes' F1)

A group or an attribute without images is left out; it is not 0.
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
    """A training split and the test split that evaluates it, e.g. CLT = (Train-GLT, Test-CBL)."""

    train: str = Field(description="training split; the protocol evaluates the runs that train on it")
    test: str = Field(description="test split on which these runs are measured")


class Evaluation(Spec):
    """The protocols by which a benchmark is evaluated."""

    protocols: dict[str, Protocol] = Field(min_length=1, description="name of a protocol -> its splits")


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Return correct images / images, in percent. labels, predicted: N."""
    return 100 * float((labels == predicted).mean())


def class_precision(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return TP / predicted of each class, 0..1, C; 0 for a class that is never predicted."""
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    # at least 1, because a class that is never predicted has no hits either: 0 / 1 = 0
    return hits / np.maximum(np.bincount(predicted, minlength=classes), 1)


def precision(labels: np.ndarray, predicted: np.ndarray, classes: int, among: np.ndarray | None = None) -> float:
    """Return the mean of `class_precision` over the classes in `among`, in percent.

    among: labels of a subset of the images; default: `labels`.
    """
    present = np.unique(labels if among is None else among)
    return 100 * float(class_precision(labels, predicted, classes)[present].mean())


def f1(accuracy: float, precision: float) -> float:
    """Return the harmonic mean; 0 if both are 0."""
    return 2 * accuracy * precision / (accuracy + precision) if accuracy + precision else 0.0


def split_metrics(rows: Table, classes: int) -> dict[str, Any]:
    """Return all metrics of one test split. rows: columns label, predicted, confidence, group, attribute."""
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    metrics: dict[str, Any] = {
        "n": len(rows),
        "accuracy": {"all": accuracy(y, p)},
        "precision": {"all": precision(y, p, classes)},
        "ece": ece(rows["confidence"].to_numpy(), y == p),
    }
    for group in GROUPS:
        member = (rows["group"] == group).to_numpy()
        if member.any():
            metrics["accuracy"][group] = accuracy(y[member], p[member])
            metrics["precision"][group] = precision(y, p, classes, among=y[member])
    for rank in sorted(r for r in rows["attribute"].unique() if r >= 0):  # -1: the data have no attributes
        member = (rows["attribute"] == rank).to_numpy()
        metrics["accuracy"][f"attribute{rank}"] = accuracy(y[member], p[member])
        metrics["precision"][f"attribute{rank}"] = precision(y[member], p[member], classes)
    return metrics | {"f1": f1(metrics["accuracy"]["all"], metrics["precision"]["all"])}


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return the number of images with each (label, predicted) pair, C x C, int64."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _protocol_details(rows: Table, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the report's figures show of one test split: a row for each class, confusion, reliability."""
    classes = len(facts["classes"])
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    matrix = confusion_counts(y, p, classes)
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
    """Return metrics and details (for the figures) of every protocol of the run's training split, and a class table.

    The model's provenance is read from predictions.attrs["facts"]; part of it is copied into the metrics. Raises
    Refused if no protocol trains on the run's split, or if a protocol's test split has no images.
    """
    import pandas as pd

    facts = predictions.attrs["facts"]
    test_splits = {name: p.test for name, p in evaluation.protocols.items() if p.train == run.split}
    if not test_splits:
        valid = sorted({p.train for p in evaluation.protocols.values()})
        raise Refused(f"no protocol trains on {run.split!r}; protocols train on: {', '.join(valid)}")
    metrics = {k: facts[k] for k in ("cell", "seed", "data", "code", "provider")} | {"protocols": {}}
    details: dict[str, Any] = {"cell": facts["cell"], "classes": facts["classes"], "protocols": {}}
    for name, test in test_splits.items():
        rows = predictions[predictions["split"] == test]
        if rows.empty:
            raise Refused(f"protocol {name}: the manifest has no image in split {test!r}")
        metrics["protocols"][name] = split_metrics(rows, len(facts["classes"]))
        details["protocols"][name] = _protocol_details(rows, facts)
    tables = [pd.DataFrame(d["classes"]).assign(protocol=name) for name, d in details["protocols"].items()]
    return metrics, details, pd.concat(tables, ignore_index=True)


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, float]:
    """Return the numbers of a nested dict by dotted path, e.g. {"clt": {"n": 3}} -> {"clt.n": 3}.

    path: prefix of the paths, for the recursion.
    """
    flat: dict[str, float] = {}
    for key, value in tree.items():
        key_path = f"{path}.{key}" if path else str(key)
        flat |= flatten(value, key_path) if isinstance(value, Mapping) else {key_path: value}
    return flat
