"""A cell, one run with one seed: its name, and the identity that its checkpoint, model and numbers must have.

Importable without torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltpipe.models.model import Model
from ltpipe.recipe.run import Run
from ltpipe.recipe.schedule import Schedule
from ltpipe.storage.identity import digest, digest_file, made_by, require
from ltpipe.storage.provenance import code_version

# the module that trains every run
TRAINING = "ltpipe.training.train"
# keys of a schedule that do not change a bit of the weights
SCRATCH = {"save_every", "save_minutes", "resident", "workers"}
# Keys that came after the first accepted numbers. Where one has its default, which must leave training as it was, it is
# no part of a recipe: a recipe that does not use it keeps its digest, and with it its accepted numbers.
LATER = (
    "decay_options",
    "lr_every",
    "optimiser",
    "optimiser_options",
    "decay_norms_and_biases",
    "layer_decay",
    "parts",
    "clip_norm",
    "ema",
    "label_smoothing",
)
# what says by which code and parameters a cell was measured
MEASURED = {"exported", "predicted", "measured", "checkpoint"}


def code_modules(run: Run, schedule: Schedule, model: Model) -> frozenset[str]:
    """Return the modules whose code, with everything that they import, decides the weights of a run."""
    network, recipe = model.with_changes(run.model), schedule.with_changes(run.schedule)
    return frozenset({TRAINING}) | run.modules() | network.modules() | recipe.modules()


def identity(cell: str, run: Run, schedule: Schedule, model: Model, seed: int) -> dict[str, Any]:
    """Return what the results of a cell must be of: cell, seed, version of the training code, digest of the recipe.

    cell: "<benchmark>.<run>.<seed's name>".
    """
    return {
        "cell": cell,
        "seed": seed,
        "code": code_version(code_modules(run, schedule, model)),
        "recipe": digest(recipe(run, schedule, model)),
    }


def recipe(run: Run, schedule: Schedule, model: Model) -> dict[str, Any]:
    """Return the parameters that decide the weights of a run, as JSON values; with the digest of each file they name.

    Raises Refused if such a file cannot be read.
    """
    whole, network = schedule.with_changes(run.schedule), model.with_changes(run.model)
    files = {path: digest_file(Path(path)) for path in sorted(network.files())}
    return {
        "run": run.model_dump(mode="json", exclude={"schedule", "model"}),
        "schedule": whole.model_dump(mode="json", exclude=SCRATCH | _left_as_before(whole)),
        "model": network.model_dump(mode="json"),
    } | ({"files": files} if files else {})


def _left_as_before(schedule: Schedule) -> set[str]:
    """Return the later keys that have their defaults."""
    fields = Schedule.model_fields
    return {key for key in LATER if getattr(schedule, key) == fields[key].get_default(call_default_factory=True)}


def exported_by(parity: Any) -> dict[str, str]:
    """Return what a model must have been exported by. parity: the block, or the mapping of its values."""
    return {"exported": made_by("ltpipe.serving.export", parity=parity)}


def predicted_by() -> dict[str, str]:
    """Return what predictions must have been made by."""
    return {"predicted": made_by("ltpipe.serving.session")}


def require_cell(what: str, found: Mapping[Any, Any], asked: Mapping[str, Any]) -> None:
    """Raise Refused unless the facts of a cell's result are those that were asked for. what: e.g. "the checkpoint"."""
    cell = asked["cell"]
    benchmark = cell.split(".")[0]
    differing = {key for key in asked if found.get(key) != asked[key]}
    # what was trained is right: nothing has to be trained again
    again = "--tags=export,evaluate" if differing <= MEASURED else f"--namespaces={cell}"
    remedy = f"Make it again: kedro run --pipeline={benchmark} {again}, or dvc repro"
    require(f"{what} of {cell}", found, asked, remedy)
