"""Kedro hooks: parameters are read once as a whole before anything runs; a node that fails leaves no old result."""

import shutil
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node
from omegaconf.errors import OmegaConfBaseException

from ltpipe.benchmark import Benchmark, load
from ltpipe.pipeline_registry import asked, project
from ltpipe.specs import Refused, parse


class WholeParameters:
    """The parameters of the benchmarks asked for, with the environment's and the command line's changes."""

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Raise Refused where the merged parameters are not benchmarks."""
        try:
            named = context.config_loader["parameters"]
        except OmegaConfBaseException:
            load(project() / "conf/base")  # says which file and which key
            raise
        known = {name for name, block in named.items() if isinstance(block, dict) and "runs" in block}
        if unknown := sorted(set(named) - known):
            raise Refused(f"parameters of no benchmark: {', '.join(unknown)}; benchmarks: {', '.join(sorted(known))}")
        for name in asked(sorted(known)):
            parse(Benchmark, named[name], f"parameters of {name}")


class StaleOutputs:
    """Before a node runs its old results go, as DVC does it."""

    @hook_impl
    def before_node_run(self, node: Node, catalog: Any) -> None:
        """Delete the files and folders that the node is about to write."""
        for name in node.outputs:
            path = getattr(catalog.get(name), "path", None)
            if path is not None and path.is_dir():
                shutil.rmtree(path)
            elif path is not None:
                path.unlink(missing_ok=True)
