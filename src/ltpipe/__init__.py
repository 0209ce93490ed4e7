"""ltpipe: long-tailed image classification from raw data to a gate that can fail."""

import os
import warnings

__version__ = "0.1.0"

# onnxruntime 1.29 and later send usage data by default, also on Linux; it reads this variable when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Users type `kedro run --pipeline=<benchmark>`; Kedro 1.7 deprecates that spelling for `--pipelines`. This module is
# imported before the command runs. The filter matches the message, so that training works without Kedro.
warnings.filterwarnings("ignore", message="Option '--pipeline' is deprecated")
# A cell's dataset is named <benchmark>.<run>.<seed>.<dataset>; Kedro warns if it belongs to another benchmark.
warnings.filterwarnings("ignore", message="One or more dataset names contain '.' characters")
