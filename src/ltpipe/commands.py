"""`ltpipe VERB`: one command; a verb's module is imported only when the verb is used."""

from importlib import import_module
from typing import Any

import click

# verb -> what --help says of it; the command is `command` in the module ltpipe.<verb>
VERBS = {
    "accept": "Accept the measured numbers of a benchmark as its baseline.",
    "comment": "Write what a pull request does to a benchmark, for its comment; it may lack an agreement.",
    "compare": "Compare two models on one split, picture by picture.",
    "generate": "Write every generated file (dvc.yaml, docs); --check says which are stale.",
    "init": "Look at a folder of your own images, and write a benchmark for it.",
    "latency": "Time an exported model beside a fixed network.",
    "predict": "Predict the class of images by an exported model.",
    "quantise": "Make an int8 or fp16 copy of an exported model.",
    "train": "Train runs of a benchmark without Kedro and DVC, on a GPU if there is one.",
}


class Missing(click.ClickException):
    """A package is not installed. Not ltpipe.config.spec.Refused: --help imports no pydantic."""

    exit_code = 2


class Verbs(click.Group):
    """The verbs, imported one at a time: `ltpipe --help` imports none of them."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the verbs."""
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command of a verb."""
        if name not in VERBS:
            return None
        command: click.Command = import_module(f"ltpipe.{name}").command
        return command

    def invoke(self, context: click.Context) -> Any:
        """Run a verb. One whose packages are not installed, as in the serving image, says so in one message."""
        try:
            return super().invoke(context)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in ("", "ltpipe"):
                raise
            raise Missing(
                f"this needs the package {error.name}, which is not installed here; "
                "the serving image holds what `ltpipe predict` and `ltpipe latency` need"
            ) from error

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=Verbs)
@click.version_option(package_name="ltpipe")
def main() -> None:
    """Long-tailed image classification: data, training, ONNX, and a gate that can fail."""


if __name__ == "__main__":
    main()
