"""One Kedro pipeline per benchmark file; `kedro run` alone runs the embedded one."""

from pathlib import Path
from typing import NoReturn

from kedro.framework.project import pipelines as registered
from kedro.pipeline import Pipeline
from kedro.utils import find_kedro_project

import pipelines
from ltpipe.benchmark import load
from ltpipe.specs import Refused

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


def register_pipelines() -> dict[str, Pipeline]:
    """The graphs of the benchmarks that were asked for (all, where none was named), and `__default__`.

    A start that needs one benchmark does not pay for the graphs of the others.
    """
    specs = load(project() / "conf/base")
    default = DEFAULT if DEFAULT in specs else next(iter(specs))
    asked = registered._requested_pipelines  # set by `kedro run`; Kedro's find_pipelines reads it in the same way
    wanted = set(specs) if asked is None else {default if name == "__default__" else name for name in asked}
    found = Registered(list(specs))
    found.update({name: pipelines.benchmark(name, spec) for name, spec in specs.items() if name in wanted})
    if default in found:
        found["__default__"] = found[default]
    return found
