"""Kedro's session, with errors in one line: what a filter names wrongly, and no advice that would not help."""

import logging
import sys
from typing import Any

from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.pipeline.node import Node

from ltpipe.config.spec import Refused
from ltpipe.pipeline_registry import STAGES

FILTERING = "kedro.pipeline.pipeline"  # the module that raises if a filter leaves no node, or names one wrongly
RUNNING = ("kedro.runner.sequential_runner", "kedro.runner.parallel_runner")  # loggers of the runners


class Session(KedroSession):
    """A session that refuses --tags, --namespaces and --nodes that the pipeline does not have, with the valid ones."""

    def run(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Run as Kedro does. Raises Refused instead of a ValueError of the pipeline's filters, and for unknown tags.

        Kedro takes no notice of a tag that no node has, if it is beside one that a node has. For a stage that this
        benchmark does not have this is right; a misspelt one would be left out without a word.
        """
        _refuse_unknown_tags(options)
        try:
            result: dict[str, Any] = super().run(*arguments, **options)
        except ValueError as error:
            if not _raised_by(error, FILTERING):
                raise
            raise Refused(_explain(options, str(error))) from None
        return result


def _raised_by(error: BaseException, module: str) -> bool:
    """Tell whether the error was raised in this module itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == module


def _nodes(options: dict[str, Any]) -> list[Node]:
    """Return the nodes of the pipelines that are asked for, before any filter."""
    return [node for name in options.get("pipeline_names") or ["__default__"] for node in pipelines[name].nodes]


def _refuse_unknown_tags(options: dict[str, Any]) -> None:
    """Raise Refused for a tag that is no stage's, of any benchmark, and that no node has."""
    if unknown := set(options.get("tags") or ()) - set(STAGES):
        own = {tag for node in _nodes(options) for tag in node.tags} - set(STAGES)
        if unknown := unknown - own:
            known = ", ".join([*STAGES, *sorted(own)])
            raise Refused(f"no stage is called {', '.join(sorted(unknown))}; stages: {known}")


def _explain(options: dict[str, Any], message: str) -> str:
    """Return what was asked for that the pipeline does not have, with the valid choices."""
    nodes = _nodes(options)
    present = {tag for node in nodes for tag in node.tags}
    tags = set(options.get("tags") or ())
    if tags and not tags & present:
        here = ", ".join(stage for stage in STAGES if stage in present)
        return f"no node has the tag {', '.join(sorted(tags))}; stages here: {here}"
    named = {tuple(str(node.namespace).split(".")) for node in nodes}
    known = {name[:depth] for name in named for depth in (1, 2, 3)}
    asked = [name for space in options.get("namespaces") or () for name in space.split(",")]
    if unknown := sorted(name for name in asked if tuple(name.split(".")) not in known):
        shown = ", ".join(sorted(".".join(name) for name in known if len(name) < len(("benchmark", "run", "seed"))))
        return f"no node is in the namespace {', '.join(unknown)}; namespaces: {shown}, and the seeds of each run"
    return f"nothing to run: {message}"


class NoAdvice(logging.Filter):
    """Drop Kedro's advice to repeat the command, or to resume it, where a node refused: its message says what to do."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is kept."""
        advises = str(record.msg).startswith(("No nodes ran", "There are "))
        return not (advises and isinstance(sys.exc_info()[1], Refused))


for runner in RUNNING:  # here, since Kedro allows no class of ours in conf/logging.yml
    logging.getLogger(runner).addFilter(NoAdvice())
