"""Stage `gate`: exit with 3 if the verdict does not pass. The verdict itself is made in the stage `report`."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import click

from ltpipe.config.shell import typed
from ltpipe.config.spec import Refused

log = logging.getLogger("ltpipe.gate")


class GateFailed(Refused):
    """The gate failed; the message lists every number that failed."""

    exit_code = 3


class NoBaseline(Refused):
    """There is nothing to compare with yet: no failure of the model, and no pass."""

    exit_code = 6

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message without click's "Error:": nothing went wrong."""
        click.echo(f"Not judged yet: {self.format_message()}", file=file, err=file is None)


def gate(verdict: Mapping[str, Any], report: Path, state: Mapping[str, Any]) -> None:
    """Raise GateFailed, with every reason, unless the verdict passes; NoBaseline if nothing was accepted yet.

    report: the report's folder, for the message. As an input of this node it is always written before the gate fails.
    state: see `ltpipe.state`; Refused if the verdict is of another one.
    """
    name = state["benchmark"]
    judged = verdict.get("state", {})
    if judged.get("digest") != state["digest"]:
        raise Refused(
            f"the verdict on {name} is of another state: {_differences(judged, state)}. "
            f"Judge this one: kedro run --pipeline={name} --tags=report,gate, or dvc repro"
        )
    for line in _results(verdict):
        log.info("%s: %s", name, line)
    for line in _recommended(report, state["digest"]):
        log.info("%s: %s", name, line)
    if verdict["baseline"] == "none" and len(verdict["failed"]) == 1:  # the one reason is that there is none
        raise NoBaseline(
            f"{name} has no accepted baseline yet: the numbers are measured, and nothing was compared. Look at "
            f'{report}/report.html; if they are right, type: {typed(f"ltpipe accept {name}")} --reason "first '
            f'baseline"; then {_again(name)}'
        )
    if not verdict["passes"]:
        # the verdict is a file, and the same wherever it is written
        failed = [line.replace("ltpipe accept", typed("ltpipe accept")) for line in verdict["failed"]]
        lines = "\n".join(f"  {line}" for line in failed)
        number, page = len(verdict["failed"]), f"{report}/report.html"
        raise GateFailed(
            f"gate failed: {number} reason{'s' * (number != 1)}:\n{lines}{_settings(verdict)}\nreport: {page}"
        )
    log.info("report: %s/report.html", report)
    log.info("%s", last_line(name, verdict))


def _again(name: str) -> str:
    """Return how to judge again; DVC sets DVC_STAGE for the commands of its stages."""
    if "DVC_STAGE" in os.environ:
        return "run this command again"
    return typed(f"kedro run --pipeline={name}")


def _results(verdict: Mapping[str, Any]) -> list[str]:
    """Return the primary metric of each run, a line each; without a gate there is no such metric."""
    primary = verdict.get("primary")
    found = [(s["run"], s["n"], s["metrics"][primary]) for s in verdict["summaries"] if primary in s["metrics"]]
    return [
        f"{primary} of {run}: {spread['mean']:.2f}" + (f" +- {spread['std']:.2f} (n {n})" if n > 1 else " (n 1)")
        for run, n, spread in found
    ]


def _recommended(report: Path, state: str) -> list[str]:
    """Return the run that the report recommends, and where its model is; nothing if it recommends none."""
    path = report / "classes.json"
    said = json.loads(path.read_bytes()) if path.exists() else {}
    if said.get("state") != state or not said.get("model"):
        return []
    # report: <data>/08_reporting/<benchmark>/report. A look that trained only some of its cells has not every model
    model = report.parents[2] / said["model"]
    where = str(model) if model.exists() else f"{said['model']}, which is not below {report.parents[2]}"
    return [f"recommended by validation: {said['recommended']}, {where}"]


def last_line(name: str, verdict: Mapping[str, Any]) -> str:
    """Return what a gate that passes says last: what it compared, what it would have seen, and what was changed."""
    if verdict["baseline"] == "nothing":
        return f"{name}: nothing is judged (gate.against: nothing){_settings(verdict)}"
    judged = [row for row in verdict["rows"] if row["verdict"] == "pass"]
    first = [row["sees"] for row in judged if row["metric"] == verdict["primary"]]
    seen = f"; a fall of {max(first):.2f} points of {verdict['primary']} is caught 4 times in 5" if first else ""
    return f"{name}: the gate passes, {len(judged)} comparisons{seen}{_settings(verdict)}"


def _settings(verdict: Mapping[str, Any]) -> str:
    """Return how the gate's settings differ from those of the accepted file, and where they mislead, or nothing."""
    changed = f"\nchanged since accepted: {'; '.join(verdict['settings'])}" if verdict["settings"] else ""
    return changed + "".join(f"\nnote: {line}" for line in verdict["notes"])


def _differences(judged: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = {"parameters": "parameters", "accepted": "accepted baseline"}
    differing = [text for key, text in names.items() if judged.get(key) != now[key]]
    return ", ".join(differing) or "code or data"
