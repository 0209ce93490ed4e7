"""Kedro hooks: validate the parameters as a whole before anything runs; delete a node's outputs before it runs."""

import shutil
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node
from omegaconf.errors import OmegaConfBaseException

from ltpipe.benchmark import Benchmark, load
from ltpipe.config.parameters import benchmark_names, resolve_like
from ltpipe.config.spec import Refused, parse
from ltpipe.pipeline_registry import project_root, requested_benchmarks


class WholeParameters:
    """Validate the parameters of the requested benchmarks, with the changes of environment and command line.

    The validated whole replaces what was read, so that every node sees the defaults of blocks that a file leaves out.
    """

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Raise Refused if the merged parameters are not benchmarks."""
        known = benchmark_names(project_root() / "conf/base")
        try:
            read = context.config_loader["parameters"]
        except OmegaConfBaseException:
            load(project_root() / "conf/base")  # says which file and which key
            raise
        if unknown := sorted(set(read) - set(known)):
            load(project_root() / "conf/base")  # a file whose key is not its name
            raise Refused(f"parameters of no benchmark: {', '.join(unknown)}; benchmarks: {', '.join(known)}")
        names = requested_benchmarks(sorted(read))
        specs = {name: parse(Benchmark, resolve_like(read, name), f"parameters of {name}") for name in names}
        for name, built in load(project_root() / "conf/base", names).items():
            _same_graph(name, built, specs[name])
        context.config_loader["parameters"] = read | {name: spec.model_dump() for name, spec in specs.items()}


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
