"""`kedro viz`: with this project's hooks and its own view of the graph; the page that it builds asks nobody for a font.

Kedro calls these hooks around each command (entry point `kedro.cli_hooks`). Kedro-Viz is the dependency group `viz`.
"""

import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kedro.framework.cli.hooks import cli_hook_impl

from ltpipe.config.spec import Refused
from ltpipe.pipeline_registry import VIEW, project_root

SITE = "build"  # folder that `kedro viz build` writes into
API = "api"  # of it, what the page reads
FONTS = re.compile(r"\s*<link[^>]*fonts\.(?:googleapis|gstatic)\.com[^>]*>")


class Viz:
    """Prepare `kedro viz`, and finish what `kedro viz build` writes."""

    @cli_hook_impl
    def before_command_run(self, project_metadata: Any, command_args: list[str]) -> None:
        """Choose the view, and add --include-hooks: without our hooks, references between benchmarks stay unresolved.

        Exit with code 2 if Kedro-Viz is not installed.
        """
        if not _draws(project_metadata, command_args):
            return
        if find_spec("kedro_viz") is None:
            _exit("kedro viz needs the package kedro-viz: uv run --group viz kedro viz build", Refused.exit_code)
        os.environ[VIEW] = "1"  # also for the processes that it starts
        if command_args == ["viz"]:
            command_args.append("run")
        if "--include-hooks" not in command_args:
            command_args.append("--include-hooks")  # the list is the one that Kedro parses after this call
        if command_args[1] == "build":
            shutil.rmtree(_api(), ignore_errors=True)  # of another state of the graph

    @cli_hook_impl
    def after_command_run(self, project_metadata: Any, command_args: list[str]) -> None:
        """Take fonts of a network and this machine's folder out of the page. Exit with code 1 if none was written."""
        if not _draws(project_metadata, command_args) or command_args[1:2] != ["build"]:
            return
        if not (_api() / "main").exists():  # Kedro-Viz has said why, and exits with 0
            _exit("kedro viz built no page", 1)
        for page in (project_root() / SITE).glob("*.html"):
            page.write_text(FONTS.sub("", page.read_text()))
        for node in (_api() / "nodes").iterdir():
            node.write_text(node.read_text().replace(f"{project_root()}/", ""))


def _draws(project: Any, command_args: list[str]) -> bool:
    """Tell whether a command draws this project; Kedro calls these hooks in every project of an environment."""
    ours = getattr(project, "package_name", None) == __name__.partition(".")[0]
    return ours and command_args[:1] == ["viz"] and not {"-h", "--help"} & set(command_args)


def _api() -> Path:
    return project_root() / SITE / API


def _exit(message: str, code: int) -> Any:
    Refused(message).show()
    sys.exit(code)


hooks = Viz()
