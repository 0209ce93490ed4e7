"""How a user types a command of ours where this process runs."""

import os


def typed(command: str) -> str:
    """Return the command as it can be typed again: after `uv run` if this process was started so.

    Without an active environment, the shell would not find it otherwise. uv names itself to what it starts, in UV.
    """
    return f"uv run {command}" if os.environ.get("UV") else command
