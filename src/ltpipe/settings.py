"""Kedro's settings."""

from ltpipe.hooks import StaleOutputs, WholeParameters

# without a soft merge an environment that names one key of a block would delete the block's other keys;
# "base" as run environment, because a fresh clone or an image has no conf/local
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "base",
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
}
HOOKS = (WholeParameters(), StaleOutputs())
