"""Record: the numbers of one trained cell with all that made them, as a small file to keep.

`ltpipe train --record FOLDER` writes <benchmark>/<run>/<seed>.json below FOLDER; docs/results.md shows the records of
benchmarks/results/trained beside the numbers that papers report.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from ltpipe.config.spec import Refused, Spec, parse
from ltpipe.evaluation.measure import Evaluation, Protocol, split_metrics
from ltpipe.models.model import Model
from ltpipe.recipe.cell import recipe
from ltpipe.recipe.run import MethodChoice, Run
from ltpipe.recipe.schedule import Schedule
from ltpipe.storage.table import Table


class Record(Spec):
    """What one cell reached, and by what."""

    cell: str = Field(description="<benchmark>.<run>.<seed's name>")
    seed: int = Field(description="the seed's number")
    code: str = Field(description="version of the training code")
    recipe: str = Field(description="digest of the parameters, by the code of that time")
    data: str = Field(description="data id: manifest and pixels")
    parameters: dict[str, Any] = Field(description="run, schedule and model, with the defaults of that time")
    protocols: dict[str, Protocol] = Field(description="on which test split which training split is judged")
    command: str = Field(description="what to type for this cell again, in a clone of the project")
    device: str = Field(description="processor or GPU")
    versions: dict[str, str] = Field(
        description="of python and of the libraries that decide the pixels and the weights"
    )
    seconds: float = Field(ge=0, description="wall time of the training, without the run that it starts from")
    finished: str = Field(description="day on which it was recorded, in UTC")
    metrics: dict[str, dict[str, Any]] = Field(description="protocol -> the metrics of its test split")

    @property
    def run(self) -> str:
        """The run's name."""
        return self.cell.split(".")[1]


def require_test_images(manifest: Table, evaluation: Evaluation) -> None:
    """Raise Refused if a protocol's test split has no image: said before a training, not after it."""
    for name, protocol in evaluation.protocols.items():
        if not (manifest["split"] == protocol.test).any():
            raise Refused(f"--record: the data have no image of split {protocol.test}, on which protocol {name} tests")


def protocol_metrics(predictions: Table, evaluation: Evaluation, run: Run, classes: int) -> dict[str, dict[str, Any]]:
    """Return the metrics of every protocol that trains on the run's split.

    predictions: columns split, label, predicted, confidence, group and attribute, a row for each image.
    """
    protocols = {name: p.test for name, p in evaluation.protocols.items() if p.train == run.split}
    return {name: split_metrics(predictions[predictions["split"] == test], classes) for name, test in protocols.items()}


def whole_recipe(run: Run, schedule: Schedule, model: Model) -> dict[str, Any]:
    """Return the recipe of a run with the defaults of the method's and the network's options, as JSON values."""
    stated = recipe(run, schedule, model)
    network = model.with_changes(run.model)
    return {
        "run": stated["run"] | {"options": _options(run)},
        "schedule": stated["schedule"],
        "model": stated["model"] | {"options": network.config().model_dump(mode="json")},
    }


def _options(choice: MethodChoice) -> dict[str, Any]:
    """Return the options of a method, and of the method that it is around, with all defaults."""
    inner, options = choice.base(), choice.config().model_dump(mode="json")
    return options | ({"base": {"method": inner.method, "options": _options(inner)}} if inner else {})


def same_recipe(record: Record, run: Run, schedule: Schedule, model: Model) -> bool:
    """Tell whether the record's parameters are those that the benchmark states now.

    Today's defaults are filled in only for keys that came later, because they were not there to be stated. So a new key
    must have a default that leaves training as it was.
    """
    kept = record.parameters
    then = (
        Run.model_validate(kept["run"]),
        Schedule.model_validate(kept["schedule"]),
        Model.model_validate(kept["model"]),
    )
    return whole_recipe(*then) == whole_recipe(run, schedule, model)


def read_records(folder: Path) -> dict[str, list[Record]]:
    """Return benchmark -> its records, in the order of their names.

    Raises Refused if a file is no record, or is not that of the cell that its name says: a copied file would count as
    a seed of its own.
    """
    found: dict[str, list[Record]] = {}
    for path in sorted(folder.glob("*/*/*.json")):
        name = path.relative_to(folder)
        record = parse(Record, json.loads(path.read_text()), str(name))
        if f"{record.cell.replace('.', '/')}.json" != name.as_posix():
            raise Refused(f"{name}: this is the record of {record.cell}")
        same_run = found.setdefault(record.cell.split(".")[0], [])
        if any(other.run == record.run and other.seed == record.seed for other in same_run):
            raise Refused(f"{name}: another record of {record.run} has the seed {record.seed} too")
        same_run.append(record)
    return found
