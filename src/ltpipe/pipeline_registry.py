"""One Kedro pipeline per benchmark file; `kedro run` alone runs the embedded one."""

from pathlib import Path
from typing import NoReturn

from kedro.framework.project import pipelines as registered
from kedro.pipeline import Pipeline
from kedro.utils import find_kedro_project

import pipelines
from ltpipe.benchmark import load
from ltpipe.config.parameters import benchmark_names
from ltpipe.config.spec import Refused

DEFAULT = "digits_glt"


class Registered(dict[str, Pipeline]):
    """Pipelines by name; another name is refused with the valid ones instead of a page of traceback."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def __missing__(self, name: str) -> NoReturn:
        raise Refused(f"no benchmark {name!r}; benchmarks: {', '.join(self.names)}")


def project() -> Path:
    """The folder of the pyproject.toml that names ltpipe: the working directory or one above it."""
    return Path(find_kedro_project(Path.cwd()) or Path.cwd())


def requested(known: list[str]) -> list[str]:
    """The benchmarks that the command names, in the order of `known`; all, where it names none."""
    requested = registered._requested_pipelines  # set by `kedro run`; Kedro's find_pipelines reads it in the same way
    if requested is None:
        return known
    default = DEFAULT if DEFAULT in known else known[0]
    wanted = {default if name == "__default__" else name for name in requested}
    return [name for name in known if name in wanted]


def register_pipelines() -> dict[str, Pipeline]:
    """The graphs of the benchmarks that were requested for, and `__default__`.

    A start that needs one benchmark pays for the files and graphs of no other.
    """
    known = benchmark_names(project() / "conf/base")
    specs = load(project() / "conf/base", requested(known))
    found = Registered(known)
    found.update({name: pipelines.benchmark(name, spec) for name, spec in specs.items()})
    default = DEFAULT if DEFAULT in known else known[0]
    if default in found:
        found["__default__"] = found[default]
    return found
