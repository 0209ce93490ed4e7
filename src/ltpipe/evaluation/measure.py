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
from ltpipe.models.model import Model
from ltpipe.recipe.cell import exported_by, identity, predicted_by, require_cell
from ltpipe.recipe.run import Run
from ltpipe.recipe.schedule import Schedule
from ltpipe.storage.identity import digest, digest_blocks
from ltpipe.storage.manifest import KEPT, fingerprint, with_attribute_names
from ltpipe.storage.provenance import code_version
from ltpipe.storage.table import Table

# The code that turns a checkpoint into metrics, with the modules that the parameters name.
MEASURING = frozenset({__name__, "ltpipe.serving.export", "ltpipe.serving.session"})
# what the metrics and the details of a cell say of the cell
IDENTITY = ("cell", "seed", "data", "code", "recipe")
COPIED = (*IDENTITY, "checkpoint", "started_from", "provider")


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


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> dict[str, list[int]]:
    """Return the pairs (label, predicted) that occur, and n, the images of each: three equally long lists, by label.

    All C x C counts would be 66 million for 8,142 classes, of which at most as many as there are images are not 0.
    """
    pairs, n = np.unique(labels.astype(np.int64) * classes + predicted, return_counts=True)
    return {"label": (pairs // classes).tolist(), "predicted": (pairs % classes).tolist(), "n": n.tolist()}


def _protocol_details(rows: Table, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the report's figures show of one test split: a row for each class, confusion, reliability."""
    classes = len(facts["classes"])
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    images, hits = np.bincount(y, minlength=classes), np.bincount(y[y == p], minlength=classes)
    precision = class_precision(y, p, classes)
    groups = rows.drop_duplicates("label").set_index("label")["group"]
    per_class = [
        {
            "label": c,
            "class": facts["classes"][c],
            "group": groups[c],
            "train_images": facts["classes_counts"][c],
            "n": int(images[c]),
            "recall": 100 * float(hits[c] / images[c]),
            "precision": 100 * float(precision[c]),
        }
        for c in sorted(groups.index)
    ]
    bins = reliability(rows["confidence"].to_numpy(), y == p)
    return {"classes": per_class, "confusion": confusion_counts(y, p, classes), "reliability": bins}


def measured_by(evaluation: Evaluation, parity: Any) -> str:
    """Return a digest of what turns a checkpoint into metrics: the code of export and evaluate, and their parameters.

    parity: the block `parity`, as a Spec or as the mapping of its values.
    """
    blocks = {"evaluate": evaluation, "parity": parity}
    return digest({"code": code_version(MEASURING | evaluation.modules()), "parameters": digest_blocks(blocks)})


def measure(
    predictions: Table,
    manifest: Table,
    evaluation: Evaluation,
    parity: Any,
    run: Run,
    schedule: Schedule,
    model: Model,
    seed: int,
    *,
    cell: str,
) -> tuple[dict[str, Any], dict[str, Any], Table]:
    """Return metrics and details (for the figures) of every protocol of the run's training split, and a class table.

    The model's provenance is read from predictions.attrs["facts"]; part of it is copied into the metrics. Raises
    Refused if the predictions are not of this cell, code, recipe and manifest, if their images are not exactly the
    manifest's val and test images, if no protocol trains on the run's split, or if a test split has no images.
    """
    facts = predictions.attrs["facts"]
    made = exported_by(parity) | predicted_by()
    require_cell("the table of predictions", facts, identity(cell, run, schedule, model, seed) | made)
    _require_images(predictions, manifest, cell)
    test_splits = {name: p.test for name, p in evaluation.protocols.items() if p.train == run.split}
    if not test_splits:
        valid = sorted({p.train for p in evaluation.protocols.values()})
        raise Refused(f"no protocol trains on {run.split!r}; protocols train on: {', '.join(valid)}")
    metrics = {key: facts[key] for key in COPIED} | {"measured": measured_by(evaluation, parity), "protocols": {}}
    details: dict[str, Any] = {key: facts[key] for key in IDENTITY} | {"classes": facts["classes"], "protocols": {}}
    for name, test in test_splits.items():
        rows = predictions[predictions["split"] == test]
        if rows.empty:
            raise Refused(f"protocol {name}: the manifest has no image in split {test!r}")
        metrics["protocols"][name] = split_metrics(with_attribute_names(rows, manifest), len(facts["classes"]))
        details["protocols"][name] = _protocol_details(rows, facts)
    return metrics, details, _class_table(details)


def _require_images(predictions: Table, manifest: Table, cell: str) -> None:
    """Raise Refused unless the predictions are for this manifest's val and test rows, each once, with its labels."""
    rows = manifest.loc[manifest["role"] != "train", list(KEPT)].sort_values("id", ignore_index=True)
    found = predictions[list(KEPT)].sort_values("id", ignore_index=True)
    data = predictions.attrs["facts"]["data"].split("-")[0]
    if data != fingerprint(manifest) or not rows.astype(str).equals(found.astype(str)):
        missing, other = set(rows["id"]) - set(found["id"]), set(found["id"]) - set(rows["id"])
        raise Refused(
            f"{cell}: the predictions are not those for this manifest: {len(missing)} images have none, {len(other)} "
            f"are unknown, {len(found) - found['id'].nunique()} come twice; data {data}, manifest "
            f"{fingerprint(manifest)}. Predict again: kedro run --pipeline={cell.split('.')[0]} --tags=evaluate"
        )


def _class_table(details: Mapping[str, Any]) -> Table:
    """Return a row for each protocol and class, with the identity of the cell in every row."""
    import pandas as pd

    tables = [pd.DataFrame(d["classes"]).assign(protocol=name) for name, d in details["protocols"].items()]
    identity_columns = {key: details[key] for key in ("cell", "recipe", "code", "data")}
    return pd.concat(tables, ignore_index=True).assign(**identity_columns)


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, float]:
    """Return the numbers of a nested dict by dotted path, e.g. {"clt": {"n": 3}} -> {"clt.n": 3}.

    path: prefix of the paths, for the recursion.
    """
    flat: dict[str, float] = {}
    for key, value in tree.items():
        key_path = f"{path}.{key}" if path else str(key)
        flat |= flatten(value, key_path) if isinstance(value, Mapping) else {key_path: value}
    return flat
