"""The graph of a benchmark: a module for each part of it. They only connect functions of ltpipe with datasets.

The graphs of benchmarks differ only in their runs, their seeds and the optional stage `cluster`; `benchmark` builds all
of them from parameters. The data are prepared once. Then every run is trained and measured with each of its seeds, in a
namespace of its own, which is called a cell. In the end all cells are judged together.

    <benchmark>                 parameters, fetch, cluster, split, report, gate
    <benchmark>.<run>           summarise
    <benchmark>.<run>.<seed>    train, export, evaluate
"""

from typing import TYPE_CHECKING

from kedro.pipeline import Pipeline

from pipelines import cluster, evaluate, export, fetch, gate, parameters, report, split, train

if TYPE_CHECKING:
    from ltpipe.benchmark import Benchmark


def benchmark(name: str, spec: "Benchmark") -> Pipeline:
    """Return the graph of one benchmark."""
    source, pictures, index = spec.source.name, spec.source.pictures, f"{name}.index"
    parts = [parameters.create(name), fetch.create(name, source, pictures != "squares")]
    if spec.cluster is not None:
        start = {"checkpoint": f"{spec.cluster.start_from}.checkpoint"} if spec.cluster.start_from else {}
        parts.append(cluster.create(name, source, start))
        index = f"{name}.clustered"
    crops = spec.expect.crops is not None
    parts.append(split.create(name, source, index, spec.cluster is not None, pictures, crops))
    for run, row in spec.runs.items():
        for seed in spec.seeds_of(run):
            from_run = row.train.start_from
            start = {"start": f"{name}.{from_run}.{seed}.checkpoint"} if from_run else {}
            parts += [train.create(name, run, seed, start, source, pictures), export.create(name, run, seed)]
            parts += [evaluate.create(name, run, seed)]
    parts += [report.create(name, {run: spec.seeds_of(run) for run in spec.runs}), gate.create(name)]
    return Pipeline(parts)
