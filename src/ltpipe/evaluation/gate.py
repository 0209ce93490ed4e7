"""Stage `gate`: exit with 3 if the verdict does not pass. The verdict itself is made in `judge`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltpipe.config.spec import Refused


class GateFailed(Refused):
    """The gate failed; the message lists every number that failed."""

    exit_code = 3


def gate(verdict: Mapping[str, Any], report: Path) -> None:
    """Raise GateFailed, with every number that failed, unless the verdict passes.

    report: the report's folder, for the message. As an input of this node it is always written before the gate fails.
    """
    if not verdict["passes"]:
        lines = "\n".join(f"  {line}" for line in verdict["failed"])
        number = len(verdict["failed"])
        raise GateFailed(f"gate failed: {number} comparison{'s' * (number != 1)}:\n{lines}\nreport: {report}")
