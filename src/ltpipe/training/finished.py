"""The whole result of a training, kept from its last step until the checkpoint is on disk."""

import json
import logging
from pathlib import Path
from typing import Any

from ltpipe.storage.atomic import write_atomically
from ltpipe.training import checkpoint, loop
from ltpipe.training.scratch import FINISHED

log = logging.getLogger("ltpipe.training")
SCHEMA = {"fingerprint": str, "weights": dict, "history": list, "facts": str, "cost": dict}


def fit(task: loop.Task) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Return what loop.fit returns, and keep it beside the resume point; at once if it was kept by an earlier call.

    Raises Stopped if a signal came: what is kept then is the resume point, or the whole result.
    """
    path = task.resume.with_name(FINISHED)
    if (kept := _kept(task, path)) is not None:
        log.info("%s: training had finished, its result is in %s", task.name, path)
        return kept["weights"], kept["history"], json.loads(kept["facts"]), kept["cost"]
    weights, history, facts, cost = loop.fit(task)
    values = {"weights": weights, "history": history, "facts": json.dumps(facts), "cost": cost}
    write_atomically(path, checkpoint.pack(values | {"fingerprint": task.fingerprint}))
    if task.signals.received:
        raise task.signals.stopped(task.name, f"all of the training in {path}")
    return weights, history, facts, cost


def _kept(task: loop.Task, path: Path) -> dict[str, Any] | None:
    """Return the result that an earlier call kept, if it can be used."""
    try:
        return checkpoint.load(path, task.fingerprint, SCHEMA)
    except FileNotFoundError:
        return None
    except checkpoint.Unusable as error:
        log.warning("%s: %s, not used", task.name, error)
        return None
