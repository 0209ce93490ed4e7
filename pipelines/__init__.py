"""The graph: one module a stage, wiring only; the folder listing is the pipeline.

A benchmark differs from another by its parameters, not by its code, so `benchmark` builds the graph of any of them:
fetch and split once, then every run and every seed in a namespace of its own, then the judgement.

    <benchmark>                 fetch, split, judge, report, gate
    <benchmark>.<run>.<seed>    train, export, evaluate
"""

from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any

from kedro.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from ltpipe.benchmark import Benchmark


def bind(function: "Callable[..., Any]", **constants: Any) -> "Callable[..., Any]":
    """`function` with some keyword arguments fixed, under its own name and annotations (Kedro reads both)."""
    return update_wrapper(partial(function, **constants), function)


def benchmark(name: str, spec: "Benchmark") -> Pipeline:
    """The whole graph of one benchmark."""
    from pipelines import evaluate, export, fetch, gate, report, split, train

    parts = [fetch.create(name, spec.source.name), split.create(name, spec.source.name)]
    for run, row in spec.runs.items():
        for seed in spec.seeds_of(run):
            start = row.train.start_from
            inputs = {"start": f"{name}.{start}.{seed}.checkpoint"} if start else {}
            parts += [train.create(name, run, seed, inputs), export.create(name, run, seed)]
            parts += [evaluate.create(name, run, seed)]
    parts += [report.create(name, {run: spec.seeds_of(run) for run in spec.runs}), gate.create(name)]
    return Pipeline(parts)
