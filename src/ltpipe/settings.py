"""Kedro's settings."""

from ltpipe.hooks import (
    CellsOfARun,
    DistinctPaths,
    FinishedScratch,
    Fresh,
    KnownRunners,
    Looks,
    MissingInputs,
    StaleOutputs,
    WholeParameters,
)
from ltpipe.pipeline_registry import project_root
from ltpipe.session import Session
from ltpipe.tracking import Tracked

# without a soft merge an environment that names one key of a block would delete the block's other keys;
# conf/local holds what concerns one machine (folders of data); an installation without one is complete as well
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local" if (project_root() / "conf/local").is_dir() else "base",
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
}
SESSION_CLASS = Session
# where Kedro-Viz is installed, each stage of the ledger would warn that it is a part, and write into .viz
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-viz",)
HOOKS = (
    Looks(),
    WholeParameters(),
    KnownRunners(),
    DistinctPaths(),
    MissingInputs(),
    StaleOutputs(),
    Fresh(),
    CellsOfARun(),
    FinishedScratch(),
    Tracked(),
)
