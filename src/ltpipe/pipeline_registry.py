"""One Kedro pipeline per benchmark file; `kedro run` alone runs the embedded one."""

from pathlib import Path

from kedro.pipeline import Pipeline
from kedro.utils import find_kedro_project

import pipelines
from ltpipe.benchmark import load

DEFAULT = "digits_glt"


def project() -> Path:
    """The folder of the pyproject.toml that names ltpipe: the working directory or one above it."""
    return Path(find_kedro_project(Path.cwd()) or Path.cwd())


def register_pipelines() -> dict[str, Pipeline]:
    """Every benchmark's graph by name, and `__default__`."""
    registered = {name: pipelines.benchmark(name, spec) for name, spec in load(project() / "conf/base").items()}
    default = registered.get(DEFAULT, next(iter(registered.values())))
    return registered | {"__default__": default}
