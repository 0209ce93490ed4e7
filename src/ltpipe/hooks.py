"""Kedro hooks: validate the parameters as a whole before anything runs; delete a node's outputs before it runs."""

import shutil
from collections.abc import Collection
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from ltpipe.benchmark import Benchmark, load
from ltpipe.config.parameters import benchmark_names, read_with_references, resolve_like
from ltpipe.config.spec import Refused, parse
from ltpipe.pipeline_registry import project_root, requested_benchmarks


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
        loader.config_patterns["parameters"] = _patterns(loader, read_with_references(base / "parameters", names))
        read = loader["parameters"]
        if unknown := sorted(set(read) - set(known)):
            raise Refused(f"parameters of no benchmark: {', '.join(unknown)}; benchmarks: {', '.join(known)}")
        specs = {name: parse(Benchmark, resolve_like(read, name), f"parameters of {name}") for name in names}
        for name, built in load(base, names).items():
            _same_graph(name, built, specs[name])
        loader["parameters"] = {name: spec.model_dump() for name, spec in specs.items()}


def _patterns(loader: Any, needed: Collection[str]) -> list[str]:
    """Return patterns of the files that Kedro has to read: of the needed benchmarks, and all of the environment.

    Kedro would read every benchmark, and make a dataset of each of their 2,000 parameters: 0.5 s of every start.
    """
    environment = project_root() / "conf" / (loader.env or loader.default_run_env)
    own = [path.relative_to(environment).as_posix() for path in environment.glob("parameters/**/*.yml")]
    if environment.name == "base":
        own = []
    return ["parameters*.yml", *(f"parameters/{name}.yml" for name in needed), *own]


def _same_graph(name: str, built: Benchmark, merged: Benchmark) -> None:
    """Raise Refused if an environment or --params change what the graph was built from: it would not see them."""
    was, now = built.graph(), merged.graph()
    if changed := [key for key in was if was[key] != now[key]]:
        raise Refused(
            f"parameters of {name}: {', '.join(changed)} decide the graph, which is built from "
            f"conf/base/parameters/{name}.yml: change them there, not by --params or an environment"
        )


class StaleOutputs:
    """Delete a node's outputs before it runs, as DVC does."""

    @hook_impl
    def before_node_run(self, node: Node, catalog: Any) -> None:
        """Delete the files and folders that the node is about to write."""
        for name in node.outputs:
            path = getattr(catalog.get(name), "path", None)
            if path is not None and path.is_dir():
                shutil.rmtree(path)
            elif path is not None:
                path.unlink(missing_ok=True)
