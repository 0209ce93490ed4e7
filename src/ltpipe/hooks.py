"""Kedro hooks: validate the parameters as a whole before anything runs; delete a node's outputs before it runs."""

import logging
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from ltpipe.benchmark import Benchmark, load
from ltpipe.config.parameters import benchmark_names, read_with_references, resolve_like
from ltpipe.config.spec import Refused, parse
from ltpipe.pipeline_registry import project_root, requested_benchmarks

log = logging.getLogger("ltpipe")


class WholeParameters:
    """Validate the parameters of the requested benchmarks, with the changes of environment and command line.

    The validated whole replaces what was read, so that every node sees the defaults of blocks that a file leaves out.
    """

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Raise Refused if the merged parameters are not benchmarks."""
        base, loader = project_root() / "conf/base", context.config_loader
        known = benchmark_names(base)
        names = requested_benchmarks(known)
        if not names:  # an unknown benchmark, which the registry refuses with the valid names
            loader["parameters"] = {}
            return
        needed = read_with_references(base / "parameters", names)
        loader.config_patterns["parameters"] = _parameter_files(loader, known, needed)
        read = loader["parameters"]
        if unknown := sorted(set(read) - set(known)):
            raise Refused(f"parameters of no benchmark: {', '.join(unknown)}; benchmarks: {', '.join(known)}")
        if ignored := sorted(set(loader.runtime_params or {}) - set(needed)):
            raise Refused(f"--params of {', '.join(ignored)}, but the command runs {', '.join(names)}")
        specs = {name: parse(Benchmark, resolve_like(read, name), f"parameters of {name}") for name in names}
        built = load(base, names)
        for name in names:
            _same_graph(name, built[name], specs[name], looks=bool(loader.runtime_params))
        _say_if_unchanged(loader.env, specs, built)
        loader["parameters"] = {name: spec.model_dump() for name, spec in specs.items()}


def _say_if_unchanged(environment: str | None, merged: Mapping[str, Benchmark], base: Mapping[str, Benchmark]) -> None:
    """Warn if an environment that was asked for changes nothing: --env=smoke would then train at full length."""
    for name, spec in merged.items():
        if environment not in (None, "base", "local") and spec == base[name]:
            log.warning(
                "environment %s changes nothing of %s; a file conf/%s/parameters/%s.yml would", *(environment, name) * 2
            )


def _parameter_files(loader: Any, known: Collection[str], needed: Collection[str]) -> list[str]:
    """Return the parameter files that Kedro has to read: all that it would, but for benchmarks that are not needed.

    Kedro would read every benchmark, and make a dataset of each of their 2,000 parameters: 0.5 s of every start.
    """
    conf = Path(loader.conf_source)
    unneeded = {f"parameters/{name}.yml" for name in set(known) - set(needed)}
    base = _named_parameters(conf / "base") - unneeded
    return sorted(base | _named_parameters(conf / (loader.env or loader.default_run_env)))


def _named_parameters(folder: Path) -> set[str]:
    """Return the files below an environment's folder that Kedro takes for parameters: by their name or a folder's."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".yml", ".yaml", ".json"))
    return {path.as_posix() for path in files if any(part.startswith("parameters") for part in path.parts)}


def _same_graph(name: str, built: Benchmark, merged: Benchmark, looks: bool) -> None:
    """Raise Refused if an environment or --params change what the graph or dvc.yaml were built from.

    They would not see the change. looks: --params are given, so DVC did not start this run, and may watch other code.
    """
    was, now = built.graph(), merged.graph()
    if not looks:
        was |= {"modules": built.modules(), "files": built.files()}
        now |= {"modules": merged.modules(), "files": merged.files()}
    if changed := [key for key in was if was[key] != now[key]]:
        raise Refused(
            f"parameters of {name}: {', '.join(changed)} decide the graph, or what DVC watches, which are built from "
            f"conf/base/parameters/{name}.yml: change them there, not by --params or an environment"
        )


class MissingInputs:
    """Say what is missing, and what makes it, before anything runs."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: Any) -> None:
        """Raise Refused if a file that the pipeline reads, and does not make, is not there."""
        for name in sorted(pipeline.inputs()):
            dataset = catalog.get(name)
            if getattr(dataset, "must_exist", False) and not dataset.path.exists():
                reader = next(node for node in pipeline.nodes if name in node.inputs)
                benchmark = str(reader.namespace).split(".")[0]
                raise Refused(
                    f"{name} is missing, which {reader.name} reads: it was not made yet, or a stage before it failed. "
                    f"Run the stages before it too: kedro run --pipeline={benchmark}, or dvc repro ({dataset.path})"
                )


# tags of the stages whose results the verdict does not depend on, or that make it
AFTER_ALL = {"parameters", "judge", "gate"}


class StaleOutputs:
    """Delete a node's outputs before it runs, as DVC does, and the verdict that its old outputs led to.

    A run that fails then leaves no verdict and no report, rather than those of the last run that did not.
    """

    @hook_impl
    def before_node_run(self, node: Node, catalog: Any) -> None:
        """Delete the files and folders that the node is about to write, and the verdict on the benchmark."""
        stale = list(node.outputs)
        if not node.tags & AFTER_ALL:
            benchmark = str(node.namespace).split(".")[0]
            stale += [f"{benchmark}.verdict", f"{benchmark}.report"]
        for name in stale:
            path = getattr(catalog.get(name), "path", None)
            if path is not None and path.is_dir():
                shutil.rmtree(path)
            elif path is not None:
                path.unlink(missing_ok=True)
