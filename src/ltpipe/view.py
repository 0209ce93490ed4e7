"""What `kedro viz` draws of a benchmark: the graph with a box for each stage and each run, and one seed of each run.

Seeds are alike, and 36 cells with all that they write make a picture that nobody can read. Kedro runs the whole graph.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from typing import Any

from kedro.pipeline import Node, Pipeline

# datasets of a training's own use
OWN = frozenset({"scratch", "kept", "kept_log"})


class Drawn(Node):
    """A node in the box where it is drawn. It keeps the name that `kedro run` knows, and cannot be run itself."""

    def __init__(self, node: Node, box: str, hidden: Callable[[str], bool]) -> None:
        super().__init__(
            _shown(node.func),
            [name for name in node.inputs if not hidden(name)],
            [name for name in node.outputs if not hidden(name)] or None,
            name=node.name.rpartition(".")[2],
            tags=node.tags,
            namespace=box,
        )
        self.full_name = node.name

    @property
    def name(self) -> str:
        return self.full_name


def _shown(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of any arguments, so that inputs can be left out, whose code and file are shown as the real."""

    def shown(*parts: Any, **named: Any) -> Any:
        raise NotImplementedError("a view is drawn, not run")

    real = getattr(function, "__wrapped__", function)  # a stage of a cell is a partial
    shown.__code__ = shown.__code__.replace(co_filename=real.__code__.co_filename)
    return update_wrapper(shown, real, assigned=("__name__", "__doc__"))


def view(graph: Pipeline, name: str, seeds: Mapping[str, Sequence[str]], stages: Sequence[str]) -> Pipeline:
    """Return what is drawn of a benchmark's graph. seeds: run -> names of its seeds; stages: tags, in their order."""
    left_out = {f"{name}.{run}.{seed}" for run, names in seeds.items() for seed in names[1:]}

    def hidden(dataset: str) -> bool:
        cell, _, kind = dataset.rpartition(".")
        return cell in left_out or kind in OWN

    kept = [node for node in graph.nodes if node.namespace not in left_out]
    return Pipeline([Drawn(node, _box(node, stages), hidden) for node in kept])


def _box(node: Node, stages: Sequence[str]) -> str:
    """Return the run of a node, or its first stage if it is of no run."""
    _, *run = str(node.namespace).split(".")
    return run[0] if run else next(stage for stage in stages if stage in node.tags)
