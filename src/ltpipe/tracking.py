"""MLflow, off by default: a hook that copies each finished cell and each judgement into a tracker.

It is on where MLFLOW_TRACKING_URI is set. The tracker is a copy: files and the ledger hold the results, and a tracker
that fails costs a message. What was written before is not written again: a cell is found by the digest of its
checkpoint, a judgement by those of all its cells. That needs no memory, so stages may run in many processes.
"""

import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from ltpipe.evaluation.measure import flatten
from ltpipe.storage.identity import digest, digest_bytes

log = logging.getLogger("ltpipe.tracking")
ADDRESS = "MLFLOW_TRACKING_URI"  # MLflow's own variable
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"  # another one of MLflow's
# what MLflow's client reads: nobody else is called, a tracker that does not answer holds nobody up for minutes, and
# its lines do not bury ours
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
IDENTITY = ("cell", "checkpoint", "data", "code", "recipe", "seed", "started_from")  # tags of a cell
PARENT = "mlflow.parentRunId"  # MLflow's tag: the run stands below that one
PARAMS_AT_ONCE, METRICS_AT_ONCE, LONGEST = 100, 1000, 6000  # limits of MLflow


class Done(NamedTuple):
    """A node that ran: its name without the namespace, what it took and made, and which outputs are not saved yet."""

    stage: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    unsaved: set[str]
    catalog: Any


class Tracked:
    """Write into MLflow what a node made, after it is saved."""

    def __init__(self) -> None:
        self.nodes: dict[str, Done] = {}
        self.failed = False

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Warn if a tracker is asked for and cannot be written to."""
        if os.environ.get(ADDRESS) and find_spec("mlflow") is None:
            log.warning("%s is set, but MLflow is not installed: nothing is tracked; uv sync --extra mlflow", ADDRESS)

    @hook_impl
    def after_node_run(self, node: Node, catalog: Any, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Keep what a node made until it is saved."""
        stage = node.name.rpartition(".")[2]
        if os.environ.get(ADDRESS) and stage in WRITERS and not self.failed and find_spec("mlflow"):
            self.nodes[node.name] = Done(stage, inputs, outputs, set(outputs), catalog)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Write after the node's last output: whatever happens to the tracker, the results are on the disk."""
        if node.name not in self.nodes:
            return
        self.nodes[node.name].unsaved.discard(dataset_name)
        if not self.nodes[node.name].unsaved:
            self._write(self.nodes.pop(node.name))

    def _write(self, done: Done) -> None:
        """Write once; after an error never again, so that each cell does not wait for a tracker that is gone."""
        try:
            WRITERS[done.stage](Tracker(), done)
        except Exception as error:  # noqa: BLE001 - whatever a tracker does, the results come first
            self.failed = True
            log.error(
                "MLflow at %s failed, so nothing more of this command is tracked. All results are saved; the same "
                "command again writes what is missing. (%s)",
                *(_place(os.environ[ADDRESS]), _without_password(f"{type(error).__name__}: {error}")),
            )


def _place(address: str) -> str:
    """Return an address without a user's name and password; of none that can be read, only that."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "an address that is none"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _without_password(message: str) -> str:
    """Return the first line of an error, which may have the tracker's address in it."""
    return re.sub(r"//[^/@\s]+@", "//", message.partition("\n")[0])[:300]


class Tracker:
    """MLflow's client, and the runs that were written before."""

    @cached_property
    def client(self) -> Any:
        """The client. MLflow is imported here, so that a run without it neither waits for it nor needs it."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        return MlflowClient()

    @cached_property
    def experiment(self) -> str:
        """The identifier of the experiment, which is made if there is none."""
        name = os.environ.get(EXPERIMENT, "ltpipe")
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name))

    def find(self, tags: Mapping[str, str]) -> Any:
        """Return the run with these tags, or None."""
        asked = " and ".join(f"tags.`ltpipe.{key}` = '{value}'" for key, value in tags.items())
        found = self.client.search_runs([self.experiment], asked, max_results=1)
        return found[0] if found else None

    def find_or_create(self, name: str, tags: Mapping[str, str]) -> Any:
        """Return the run with these tags."""
        return self.find(tags) or self.client.create_run(self.experiment, run_name=name, tags=_prefixed(tags))

    def cell(self, facts: Mapping[str, Any]) -> Any:
        """Return the run of a cell, made with its tags and the recipe as parameters if there is none."""
        if run := self.find({key: facts[key] for key in ("cell", "checkpoint")}):
            return run
        values = {key: text[:LONGEST] for key, value in flatten(facts["parameters"]).items() if (text := str(value))}
        run = self.client.create_run(
            self.experiment,
            run_name=facts["cell"],
            tags=_prefixed({key: facts[key] for key in IDENTITY if facts.get(key) is not None}),
        )
        self.params(run, values)
        return run

    def params(self, run: Any, values: Mapping[str, str]) -> None:
        """Write parameters, as many at once as MLflow takes."""
        from mlflow.entities import Param

        for some in _some([Param(legal(key), value) for key, value in values.items()], PARAMS_AT_ONCE):
            self.client.log_batch(run.info.run_id, params=some)

    def metrics(self, run: Any, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Write metrics, step -> name -> value; one without a value is left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        given = [(step, key, value) for step, row in rows.items() for key, value in row.items() if value is not None]
        values = [Metric(legal(key), float(value), now, step) for step, key, value in given]
        for some in _some(values, METRICS_AT_ONCE):
            self.client.log_batch(run.info.run_id, metrics=some)

    def finish(self, run: Any, tags: Mapping[str, Any]) -> None:
        """End a run. The tags say that all of a part is written, so they come last."""
        from mlflow.entities import RunTag

        self.client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in _prefixed(tags).items()])
        self.client.set_terminated(run.info.run_id)


def _some(values: Sequence[Any], n: int) -> Iterator[Sequence[Any]]:
    """Yield the values, at most n at once."""
    return (values[start : start + n] for start in range(0, len(values), n))


def _prefixed(tags: Mapping[str, Any]) -> dict[str, str]:
    return {f"ltpipe.{key}": str(value) for key, value in tags.items()}


def legal(name: str) -> str:
    """Return a name that MLflow takes; it groups by slashes: clt.accuracy.all -> clt/accuracy/all."""
    return re.sub(r"[^\w\-. /]", "_", name).replace(".", "/")


def says(run: Any, tag: str, value: Any) -> bool:
    """Tell whether a part of a run is written, by the tag that comes last."""
    return bool(run.data.tags.get(f"ltpipe.{tag}") == str(value))


def write_training(tracker: Tracker, done: Done) -> None:
    """Write the run of a trained or kept cell: recipe, provenance, a curve for each column of the log."""
    from ltpipe.storage.weights import unpack_facts

    made = {name.rpartition(".")[2]: value for name, value in done.outputs.items()}
    facts = unpack_facts(made["checkpoint"])
    run = tracker.cell(facts | {"checkpoint": digest_bytes(made["checkpoint"])})
    if says(run, "trained", "whole"):
        return
    curves = made["log"].select_dtypes("number").set_index("epoch")
    rows = {int(epoch): {f"training.{key}": row[key] for key in row.index} for epoch, row in curves.iterrows()}
    cost = made.get("cost") or {}
    tracker.metrics(run, {step: {key: v for key, v in row.items() if v == v} for step, row in rows.items()})
    known = {f"training.{key}": cost[key] for key in ("seconds", "images") if cost.get(key) is not None}
    tracker.metrics(run, {0: known})
    tracker.finish(run, ({"device": cost["device"]} if cost.get("device") else {}) | {"trained": "whole"})


def write_metrics(tracker: Tracker, done: Done) -> None:
    """Add what a cell measured, by protocol, and its exported model."""
    made = {name.rpartition(".")[2]: (name, value) for name, value in done.outputs.items()}
    name, metrics = made["metrics"]
    cell = name.rpartition(".")[0]
    run = tracker.cell(done.inputs[f"{cell}.predictions"].attrs["facts"])
    if says(run, "measured", metrics["measured"]):
        return
    tracker.metrics(run, {0: flatten(metrics["protocols"])})
    tracker.client.log_artifact(run.info.run_id, str(done.catalog.get(f"{cell}.onnx").path))
    tracker.finish(run, {"provider": metrics["provider"], "measured": metrics["measured"]})


def _judgement(tracker: Tracker, verdict: Mapping[str, Any], benchmark: str) -> Any:
    """Return the run of a judgement: that of its cells, as they were measured, and of what it compares them with."""
    cells = [[cell["cell"], cell["checkpoint"], cell["measured"]] for s in verdict["summaries"] for cell in s["cells"]]
    identity = digest({"cells": cells, "baseline": verdict["baseline"], "settings": verdict["settings"]})
    return tracker.find_or_create(benchmark, {"benchmark": benchmark, "judgement": identity})


def write_judgement(tracker: Tracker, done: Done) -> None:
    """Write the benchmark's run: means and deviations of each run over its seeds. The cells move below it."""
    [(name, verdict)] = done.outputs.items()
    run = _judgement(tracker, verdict, name.partition(".")[0])
    if says(run, "judged", "whole"):
        return
    spread = {
        f"{summary['run']}.{key}.{part}": values[part]
        for summary in verdict["summaries"]
        for key, values in summary["metrics"].items()
        for part in ("mean", "std")
    }
    tracker.metrics(run, {0: spread})
    for cell in [cell for summary in verdict["summaries"] for cell in summary["cells"]]:
        if child := tracker.find({key: cell[key] for key in ("cell", "checkpoint")}):
            tracker.client.set_tag(child.info.run_id, PARENT, run.info.run_id)
    data = sorted({data for summary in verdict["summaries"] for data in summary["data"]})
    tracker.finish(run, {"data": " ".join(data), "passes": verdict["passes"], "judged": "whole"})


def write_report(tracker: Tracker, done: Done) -> None:
    """Add the report's files to the benchmark's run."""
    [(name, files)] = done.outputs.items()
    benchmark = name.partition(".")[0]
    run = _judgement(tracker, done.inputs[f"{benchmark}.verdict"], benchmark)
    identity = digest({file: digest_bytes(content) for file, content in files.items()})
    if says(run, "reported", identity):
        return
    with tempfile.TemporaryDirectory() as folder:
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        tracker.client.log_artifacts(run.info.run_id, folder, "report")
    tracker.finish(run, {"reported": identity})


# stage's node -> what writes it
WRITERS = {"train": write_training, "measure": write_metrics, "judge": write_judgement, "report": write_report}
