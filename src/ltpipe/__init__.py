"""ltpipe: long-tailed image classification from raw data to a gate that can fail."""

import os
import warnings

__version__ = "0.1.0"

# onnxruntime sends usage data by default since 1.29, also on Linux, and reads this when it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Users type `kedro run --pipeline=<benchmark>`; Kedro 1.7 deprecates that spelling for `--pipelines`, and this
# module is imported before the command runs. Matched by message, so that training works without Kedro installed.
warnings.filterwarnings("ignore", message="Option '--pipeline' is deprecated")
