"""Run commands in a copy of the project, on the copy's own code."""

import os
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in the copy's folder; return its output and exit code."""
    env = os.environ | {
        "PYTHONPATH": f"{folder}/src:{folder}",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
