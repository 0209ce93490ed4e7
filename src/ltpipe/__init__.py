"""ltpipe: long-tailed image classification from raw data to a gate that can fail."""

import warnings

__version__ = "0.1.0"

# Users type `kedro run --pipeline=<benchmark>`; Kedro 1.7 deprecates that spelling for `--pipelines`, and this
# module is imported before the command runs. Matched by message, so that training works without Kedro installed.
warnings.filterwarnings("ignore", message="Option '--pipeline' is deprecated")
