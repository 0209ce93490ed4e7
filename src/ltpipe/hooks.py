"""StaleOutputs: before a node runs, its old results go, as DVC does it; a node that fails leaves none behind."""

import shutil
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node


class StaleOutputs:
    """Kedro hook."""

    @hook_impl
    def before_node_run(self, node: Node, catalog: Any) -> None:
        """Delete the files and folders that the node is about to write."""
        for name in node.outputs:
            path = getattr(catalog.get(name), "path", None)
            if path is not None and path.is_dir():
                shutil.rmtree(path)
            elif path is not None:
                path.unlink(missing_ok=True)
