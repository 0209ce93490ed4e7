"""Stage `train`: train a run with a seed, from a manifest and images to weights and a log."""

import hashlib
import json
import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.models.model import Model
from ltpipe.recipe.cell import identity, recipe, require_cell
from ltpipe.recipe.run import Run
from ltpipe.recipe.schedule import Schedule
from ltpipe.storage.identity import digest_bytes
from ltpipe.storage.manifest import GROUPS, class_names, data_version
from ltpipe.storage.table import Table
from ltpipe.training.scratch import RESUME
from ltpipe.training.signals import Signals

log = logging.getLogger("ltpipe.training")
LOGGED = ("cell", "recipe", "code", "data")  # of the provenance, in every row of the log


def train(  # noqa: PLR0913 - the inputs of a stage
    manifest: Table,
    images: np.ndarray,
    scratch: Path,
    run: Run,
    schedule: Schedule,
    model: Model,
    seed: int,
    start: bytes | None = None,
    pictures: Callable[[int], Any] | None = None,
    kept: bytes | None = None,
    kept_log: Table | None = None,
    kept_cost: dict[str, Any] | None = None,
    *,
    cell: str,
    device: str = "auto",
) -> tuple[bytes, Table, dict[str, Any]]:
    """Return the checkpoint (safetensors: weights, with provenance as metadata), the log, a row for each epoch, and the
    cost: what `ltpipe.training.cost` measured, with the precision and the digest of the checkpoint that it is of.

    images: uint8, N x H x W x 3. scratch: folder of the resume points. The whole result is kept there too, so that it
    is not lost before it is stored; then the caller discards it (ltpipe.training.scratch).
    start: checkpoint of the run that `run.start_from` names, of the same seed and data. pictures: opens the whole
    picture of a row of `images`; None: random boxes are taken from `images`.
    kept, kept_log, kept_cost: what an earlier call returned; it is returned again if nothing has changed since. A cost
    that was not kept is empty: nothing of it is known.
    cell: "<benchmark>.<run>.<seed's name>".
    Raises Refused if the split is unknown or empty, if the images are smaller than the network's, if the method needs
    a training image of every class and a class has none, if `start` is another cell's, or if a loss or a weight is not
    finite. Raises Stopped if a signal stopped the training: it goes on from there at the next call.
    """
    import pandas as pd
    import torch

    from ltpipe.storage import weights
    from ltpipe.training import finished, loop

    schedule = schedule.with_changes(run.schedule)
    if (pictures is None) != (manifest.attrs.get("pictures") is None):
        drawn = "squares" if manifest.attrs.get("pictures") is None else manifest.attrs["pictures"][0]
        asked = "squares" if pictures is None else "whole pictures"
        raise Refused(f"{cell}: the manifest was drawn for source.pictures: {drawn}, not for {asked}: draw it again")
    if images.shape[1] < model.image:
        raise Refused(f"{cell}: packed images are of size {images.shape[1]}, smaller than model.image {model.image}")
    if schedule.augment.colour_jitter and pictures is None:
        raise Refused(f"{cell}: schedule.augment.colour_jitter needs whole pictures (source.pictures: packed or files)")
    target = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    facts = provenance(manifest, images, run, schedule, model, seed, start, cell)
    given = _find_weights(run, model)
    if start is not None:
        _require_start(weights.unpack_facts(start), facts, run)
    if kept is not None and kept_log is not None and is_current(kept, facts) and _is_of(kept_log, facts):
        log.info("%s: kept, its checkpoint is of this code, data and parameters (--fresh trains it again)", cell)
        return kept, kept_log, kept_cost or {}
    # Beside whole pictures, the training split's squares are read between epochs only. Otherwise the validation split
    # is on the device only beside the training split: training reads far more pixels.
    split = _load_split(manifest, images, run.split, target, schedule.resident if pictures is None else 0)
    room = schedule.resident - (len(split.rows) * images[:1].nbytes / 1e9 if pictures is None else 0)
    task = loop.Task(
        name=cell,
        run=run,
        schedule=schedule,
        model=model,
        seed=seed,
        classes=len(facts["classes"]),
        train=split,
        val=_load_split(manifest, images, "val", target, room),
        fingerprint=hashlib.sha256(json.dumps([facts, target.type], sort_keys=True).encode()).hexdigest(),
        resume=scratch / RESUME,
        start=weights.unpack_weights(start)[0] if start is not None else None,
        pretrained=given[0] if given else None,
        pictures=_take_pictures(manifest, run.split, pictures, model.image, schedule.workers),
        signals=Signals(),
    )
    if given:
        log.info("%s: starts from %s", cell, ", ".join(f"{key} {value}" for key, value in given[1].items()))
    with task.signals:
        final, history, method_facts, cost = finished.fit(task)
    epochs = pd.DataFrame(history or [{"epoch": 0}])  # a method may train nothing
    epochs = epochs.assign(**{key: facts[key] for key in LOGGED})
    checkpoint = weights.pack_weights(final, facts | {"method": method_facts})
    # not in the checkpoint or the log, which are the same whenever they are made
    return checkpoint, epochs, cost | {"precision": schedule.precision, "checkpoint": digest_bytes(checkpoint)}


def is_current(checkpoint: bytes, facts: dict[str, Any]) -> bool:
    """Tell whether a checkpoint is whole, and what `provenance` says that a training would give."""
    from ltpipe.storage import weights

    try:
        found = weights.unpack_weights(checkpoint)[1]
    except Refused:
        return False
    return {key: found.get(key) for key in facts} == json.loads(json.dumps(facts))


def _is_of(table: Table, facts: dict[str, Any]) -> bool:
    """Tell whether a log is of this cell, recipe, code and data."""
    return all(key in table and set(table[key]) == {facts[key]} for key in LOGGED)


def _require_start(begun: dict[str, Any], facts: dict[str, Any], run: Run) -> None:
    """Raise Refused unless a cell starts from the checkpoint of its start run with its seed, trained on its data."""
    benchmark, _, seed = facts["cell"].split(".")
    asked = {"cell": f"{benchmark}.{run.start_from}.{seed}", "seed": facts["seed"], "data": facts["data"]}
    require_cell("the checkpoint", begun, asked)


def provenance(
    manifest: Table,
    images: np.ndarray,
    run: Run,
    schedule: Schedule,
    model: Model,
    seed: int,
    start: bytes | None,
    cell: str,
) -> dict[str, Any]:
    """Return all that determines a checkpoint, as JSON values: equal provenance on one machine means equal weights."""
    names, given = class_names(manifest), _find_weights(run, model)
    libraries = getattr(model.with_changes(run.model).module(), "LIBRARIES", ())
    labels = manifest.loc[manifest["split"] == run.split, "label"]
    return {
        **identity(cell, run, schedule, model, seed),
        # other libraries round otherwise, or decode other pixels
        "versions": {name: version(name) for name in ("torch", "torchvision", "pillow", *libraries)},
        "data": data_version(manifest, images),
        "classes": names,
        "classes_counts": np.bincount(labels, minlength=len(names)).tolist(),
        "parameters": recipe(run, schedule, model),
        "started_from": digest_bytes(start) if start is not None else None,
        "pretrained": given[1] if given else None,
    }


def _find_weights(run: Run, model: Model) -> tuple[Path, dict[str, Any]] | None:
    """Return the file of the weights that the run's backbone starts from, and facts of it; None if there is none.

    A run that starts from a finished run has the backbone of that one.
    """
    return None if run.start_from is not None else model.with_changes(run.model).find_weights()


def _take_pictures(
    manifest: Table, split: str, opener: Callable[[int], Any] | None, size: int, workers: int | None
) -> Any:
    """Return the whole pictures of a split, in the manifest's order, if there is what opens them."""
    from ltpipe.training.pictures import Pictures

    rows = manifest.loc[manifest["split"] == split, "row"].to_numpy()
    return None if opener is None else Pictures(opener, rows, size, workers)


def _load_split(manifest: Table, images: np.ndarray, split: str, device: Any, resident: float) -> Any:
    """Return a split as SplitImages; resident: GB of its pixels that may be held on the device."""
    from ltpipe.training.images import SplitImages

    rows = manifest[manifest["split"] == split]
    if rows.empty:
        valid = ", ".join(sorted(manifest["split"].unique()))
        raise Refused(f"the manifest has no image in split {split!r}; it has: {valid}")
    groups = np.array([GROUPS.index(group) for group in rows["group"]])
    return SplitImages.of(images, rows["row"].to_numpy(), rows["label"].to_numpy(), groups, device, resident * 1e9)
