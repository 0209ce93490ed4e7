"""`kedro run --fresh`: Kedro's own command with one more option. Kedro finds this module by its name."""

import os
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run

from ltpipe.config.spec import Refused
from ltpipe.hooks import FRESH


@click.group()
def cli() -> None:
    """Commands of this project, in place of Kedro's of the same name."""


def run(fresh: bool, **options: Any) -> Any:
    """Run as Kedro does. Raises Refused for two spellings of one option: Kedro fails there without a message."""
    if options["pipeline"] and options["pipelines"]:
        raise Refused("--pipeline and --pipelines are one option: give one of them; --pipelines=a,b runs several")
    if fresh:
        os.environ[FRESH] = "1"  # also for the processes of ParallelRunner
    assert kedro_run.callback is not None
    return kedro_run.callback(**options)


option = click.Option(
    ["--fresh"],
    is_flag=True,
    help="Train all cells again, from the start, though code, data and parameters are the same.",
)
cli.add_command(click.Command("run", params=[*kedro_run.params, option], callback=run, help=kedro_run.help))
