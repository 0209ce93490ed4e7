"""Second half of the stage `evaluate`: metrics from predictions alone. Every rate is in percent.

Which metrics there are, and what they are, is in the files of `ltpipe.evaluation.metrics`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec, load_item, menu_names
from ltpipe.evaluation.metrics import ALL, MENU, has_parts
from ltpipe.evaluation.metrics.ece import reliability
from ltpipe.evaluation.metrics.precision import class_precision
from ltpipe.recipe.run import Run
from ltpipe.storage.table import Table


class Protocol(Spec):
    """A training split and the test split that evaluates it, e.g. CLT = (Train-GLT, Test-CBL)."""

    train: str = Field(description="training split; the protocol evaluates the runs that train on it")
    test: str = Field(description="test split on which these runs are measured")


class Evaluation(Spec):
    """The protocols by which a benchmark is evaluated."""

    protocols: dict[str, Protocol] = Field(min_length=1, description="name of a protocol -> its splits")

    def modules(self) -> frozenset[str]:
        """Return also the metrics: every benchmark is evaluated by all of them, and they are loaded by name."""
        return super().modules() | {f"{MENU}.{name}" for name in menu_names(MENU)}


def split_metrics(rows: Table, classes: int) -> dict[str, Any]:
    """Return every metric of the menu for one test split, and n, its number of images.

    rows: the table that `ltpipe.evaluation.metrics` describes. A metric that has parts is a dict part -> value.
    """
    metrics: dict[str, Any] = {"n": len(rows)}
    for name in menu_names(MENU):
        values = load_item(MENU, name).measure(rows, classes)
        metrics[name] = values if has_parts(name) else values[ALL]
    return metrics


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
