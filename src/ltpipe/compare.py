"""`ltpipe compare`: two models on the same pictures of one split, with intervals of the difference; no torch.

ltpipe compare A B [--split test_gbl] [--out compare.json]
"""

import json
from pathlib import Path
from typing import Any

import click

from ltpipe.config.spec import Refused
from ltpipe.evaluation.paired import Drawing
from ltpipe.evaluation.versus import compare_models, find_falls, require_alike, to_text
from ltpipe.serving.files import show
from ltpipe.serving.model_input import read_model_input
from ltpipe.serving.session import classify, open_session, read_facts
from ltpipe.storage.atomic import write_atomically
from ltpipe.storage.identity import digest_bytes
from ltpipe.storage.manifest import KEPT
from ltpipe.storage.table import Table

FELL = 3  # exit code: as that of the gate
FILES = ("predictions.parquet", "model.onnx")


class Side:
    """One of the two: a table of predictions, or a model that has to predict. facts: the model's provenance."""

    def __init__(self, name: str, path: Path, provider: str) -> None:
        self.name = f"{name} ({show(path)})"
        file = _find_file(path)
        self.content = file.read_bytes()
        self.session: Any = None
        self.table: Table | None = None
        if file.suffix == ".onnx":
            self.session = open_session(self.content, provider)
            self.facts = read_facts(self.session)
        else:
            self.table = _read_predictions(file)
            self.facts = self.table.attrs["facts"]

    def predict(self, manifest: Table, images: Any) -> Table:
        """Return the model's answers to the manifest's val and test rows, as the stage evaluate does."""
        height, width = self.session.get_inputs()[0].shape[1:3]
        if tuple(images.shape[1:3]) != (height, width):
            raise Refused(f"{self.name} takes {height} x {width} pixels, the data have {images.shape[1:3]}")
        rows = manifest[manifest["role"] != "train"]
        table = rows[list(KEPT)].reset_index(drop=True)
        table["predicted"], _ = classify(self.session, images, rows["row"].to_numpy())
        table.attrs = {"facts": self.facts}
        return table


def _find_file(path: Path) -> Path:
    """Return the file that a name stands for. Raises Refused if a folder holds none."""
    if path.is_file():
        if path.suffix not in (".onnx", ".parquet"):
            raise Refused(f"{show(path)}: give a model (.onnx), predictions (.parquet), or a cell's folder with one")
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    below = sorted(show(found.parent) for name in FILES for found in path.glob(f"*/{name}"))
    said = f"; it holds the cells {', '.join(below[:12])}: name one" if below else ""
    raise Refused(f"no {' or '.join(FILES)} in {show(path)}{said}")


def _read_predictions(file: Path) -> Table:
    import pandas as pd

    try:
        table = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise Refused(f"{show(file)} is no parquet file: {error}") from None
    missing = [column for column in (*KEPT, "predicted") if column not in table]
    if missing or not {"classes", "data"} <= {*table.attrs.get("facts", {})}:
        said = f"it lacks {', '.join(missing)}" if missing else "it names no model"
        raise Refused(f"{show(file)} was not written by the stage evaluate: {said}")
    return table


def _predict_missing(sides: tuple[Side, Side], data: Path | None) -> list[Table]:
    """Return both tables of predictions; models predict on the folder `data`. Raises Refused if it is other data."""
    models = {side.name: side.facts for side in sides if side.table is None}
    if models:
        manifest, images = read_model_input(models, data)
    return [side.table if side.table is not None else side.predict(manifest, images) for side in sides]


HELP = """Compare two models on the same pictures of one split: B minus A, with intervals, by group and class.

A and B are models (.onnx), tables of predictions (.parquet), or folders that hold model.onnx or predictions.parquet,
e.g. data/07_model_output/digits_glt/ce/s0. Models predict on the benchmark's packed pictures; for tables no picture is
needed. A file of another revision: dvc get . PATH --rev REVISION -o OLD.

The interval is that of a paired bootstrap: originals are drawn, class by class, and all their pictures go together. It
is that of other pictures for these two models, not that of other seeds: for those, see the gate.

\b
Exit code: 0    compared
           2    refused: other classes, other data, no such split
           3    --max-fall: all or a group fell by more, as measured on these pictures

\b
Examples: ltpipe compare data/07_model_output/digits_glt/ce/s0 other.parquet --split test_gbl
          ltpipe compare model.onnx model.int8.onnx --split test_gbl --max-fall 1 --out compare.json
"""


@click.command("compare", help=HELP)
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
@click.option("--split", help="Split to compare on. Default: the only test split.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with manifest.parquet and images.npy. Default: data/05_model_input/ and the model's benchmark.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write.")
@click.option("--names", type=click.IntRange(min=0), default=10, show_default=True, help="Changed pictures to name.")
@click.option("--max-fall", type=click.FloatRange(min=0), help="Exit 3 if all or a group falls by more points.")
@click.option("--level", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True, help="Of the interval.")
@click.option("--resamples", type=click.IntRange(min=100), default=2000, show_default=True, help="Replicates.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the replicates.")
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def command(a: Path, b: Path, **options: Any) -> None:
    """Compare two models on one split (see HELP)."""
    sides = Side("A", a, options["provider"]), Side("B", b, options["provider"])
    require_alike(sides[0].facts, sides[1].facts)
    tables = _predict_missing(sides, options["data"])
    drawing = Drawing(options["resamples"], options["level"], options["seed"])
    comparison = compare_models(tables[0], tables[1], options["split"], drawing, options["names"])
    comparison["files"] = {key: digest_bytes(side.content) for key, side in zip("ab", sides, strict=True)}
    falls = [] if options["max_fall"] is None else find_falls(comparison, options["max_fall"])
    comparison |= {"max_fall": options["max_fall"], "falls": falls}
    click.echo(to_text(comparison), nl=False)
    if comparison["files"]["a"] == comparison["files"]["b"]:
        click.echo("A and B are the same file")
    if options["out"]:
        _write(options["out"], comparison)
    for line in falls:
        click.echo(f"--max-fall: {line}", err=True)
    click.get_current_context().exit(FELL if falls else 0)


def _write(out: Path, comparison: dict[str, Any]) -> None:
    try:
        write_atomically(out, (json.dumps(comparison, indent=1, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise Refused(f"cannot write {show(out)}: {error.strerror}") from None


if __name__ == "__main__":
    command()
