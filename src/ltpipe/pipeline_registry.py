"""Register a Kedro pipeline for each benchmark file; `kedro run` without a name runs the embedded benchmark."""

import os
from pathlib import Path
from typing import NoReturn

from kedro.framework.project import pipelines as registered
from kedro.pipeline import Pipeline
from kedro.utils import find_kedro_project

import pipelines
from ltpipe.benchmark import load
from ltpipe.config.parameters import benchmark_names
from ltpipe.config.spec import Refused
from ltpipe.view import view

# the words for stages, in Kedro's tags, in dvc.yaml and in messages: the modules of pipelines/ that make them, in order
STAGES = ("parameters", "fetch", "cluster", "split", "train", "export", "evaluate", "report", "gate")
VIEW = "LTPIPE_VIEW"  # environment variable that `kedro viz` sets: the pipelines are drawn, and not run
DEFAULT = "digits_glt"  # its images come with scikit-learn, so that it runs without a download


class Registered(dict[str, Pipeline]):
    """Pipelines by name. For an unknown name it raises Refused with the valid names, instead of a KeyError.

    Kedro looks the pipeline up after `register_pipelines` returned, so the error has to come from the lookup.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def __missing__(self, name: str) -> NoReturn:
        raise Refused(f"no benchmark {name!r}; benchmarks: {', '.join(self.names)}")


def project_root() -> Path:
    """Return the Kedro project's folder: the working directory or one above it; without one, the working directory."""
    return Path(find_kedro_project(Path.cwd()) or Path.cwd())


def requested_benchmarks(known: list[str]) -> list[str]:
    """Return the benchmarks that the command names, in the order of `known`; all of them if it names none."""
    names = registered._requested_pipelines  # set by `kedro run`; Kedro's find_pipelines reads it in the same way
    if names is None:
        return known
    default = DEFAULT if DEFAULT in known else known[0]
    wanted = {default if name == "__default__" else name for name in names}
    return [name for name in known if name in wanted]


def register_pipelines() -> dict[str, Pipeline]:
    """Return the pipelines of the requested benchmarks; `__default__` is the embedded one, if it is among them.

    Load only the requested benchmarks: reading all files and building all graphs would slow down every start.
    """
    known = benchmark_names(project_root() / "conf/base")
    specs = load(project_root() / "conf/base", requested_benchmarks(known))
    by_name = Registered(known)
    by_name.update({name: pipelines.benchmark(name, spec) for name, spec in specs.items()})
    if os.environ.get(VIEW):
        seeds = {name: {run: spec.seeds_of(run) for run in spec.runs} for name, spec in specs.items()}
        by_name.update({name: view(graph, name, seeds[name], STAGES) for name, graph in by_name.items()})
    default = DEFAULT if DEFAULT in known else known[0]
    if default in by_name:
        by_name["__default__"] = by_name[default]
    return by_name
