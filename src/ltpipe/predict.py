"""`ltpipe predict`: the class of each image, by an exported model; onnxruntime and numpy, no torch.

ltpipe predict model.onnx IMAGE_OR_FOLDER... [--out predictions.csv]
"""

import hashlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.serving.files import Found, find_images, read_image, require_images, show, write_name
from ltpipe.serving.output import AGAIN, Partial, Printed, Progress
from ltpipe.serving.preprocessing import Preprocessing, assume, read_preprocessing
from ltpipe.serving.rows import ENDINGS, Columns, Row, to_text
from ltpipe.serving.session import BATCH, open_session, read_facts, run_logits, softmax
from ltpipe.storage.identity import digest, digest_bytes

SKIPPED = 7  # exit code: all is done, but some files could not be read
INTERRUPTED = 130  # 128 + SIGINT


class Unreadable(Refused):
    """A file cannot be read, and --strict was asked for."""


class Predictor(NamedTuple):
    """A model that is ready, and how images come to it. threads: that decode."""

    session: Any
    steps: Preprocessing
    columns: Columns
    as_is: bool
    threads: int

    def predict(self, batch: Sequence[Found], pool: ThreadPoolExecutor) -> tuple[list[Row], list[Found]]:
        """Return the rows of the readable images, and the others with their faults, both in the batch's order."""
        images = list(pool.map(partial(read_image, steps=self.steps, as_is=self.as_is), batch))
        good = [(found.path, image) for found, image in zip(batch, images, strict=True) if not isinstance(image, str)]
        bad = [Found(found.path, image) for found, image in zip(batch, images, strict=True) if isinstance(image, str)]
        if not good:
            return [], bad
        chances = softmax(self._run(np.stack([image for _, image in good])))
        return [self.columns.row(path, row) for (path, _), row in zip(good, chances, strict=True)], bad

    def _run(self, images: np.ndarray) -> np.ndarray:
        try:
            return run_logits(self.session, images)
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base class but Exception
            raise Refused(f"onnxruntime could not run the model: {' '.join(str(error).split())}") from None


def _batches(found: Iterator[Found]) -> Iterator[list[Found]]:
    while batch := list(islice(found, BATCH)):
        yield batch


def _chain(seen: str, batch: Sequence[Found]) -> str:
    """Return a digest of `seen` and of the batch's names, sizes and times of change."""
    text = hashlib.sha256(seen.encode())
    for path, _ in batch:
        state = (0, 0)
        with suppress(OSError):
            status = path.stat()
            state = (status.st_size, status.st_mtime_ns)
        text.update(os.fsencode(path) + f"\0{state}\n".encode())
    return text.hexdigest()


def _pass_over(batches: Iterator[list[Found]], done: Progress) -> None:
    """Take what is done from `batches`. Raises Refused if these are not the files that were done."""
    seen, files = "", 0
    while files < done.files and (batch := next(batches, [])):
        seen, files = _chain(seen, batch), files + len(batch)
    if (seen, files) != (done.seen, done.files):
        raise Refused(f"the images that were predicted already have changed since: {AGAIN}")


def _write_all(
    predictor: Predictor, images: Sequence[Path], output: Printed | Partial, ending: str, strict: bool
) -> None:
    """Predict batch after batch, and write each. With `strict`, raises Unreadable at the first such file."""
    from tqdm import tqdm

    batches = _batches(find_images(images))
    _pass_over(batches, done := output.progress)
    # a second look at the folders, for the sake of the bar alone
    total = sum(1 for _ in find_images(images)) if sys.stderr and sys.stderr.isatty() else None
    bar = tqdm(total=total, initial=done.files, unit=" files", disable=None if sys.stderr else True)
    with bar, ThreadPoolExecutor(predictor.threads) as pool:
        for batch in batches:
            rows, bad = predictor.predict(batch, pool)
            with bar.external_write_mode(file=sys.stderr):
                _report(bad, strict)
            text = to_text(ending, predictor.columns.names(), rows, first=not done.rows)
            done = done.after(len(batch), len(rows), _chain(done.seen, batch))
            output.write(text.encode(), done)
            done = output.progress
            bar.update(len(batch))


def _report(bad: Sequence[Found], strict: bool) -> None:
    """Name unreadable files on standard error, a line each. With `strict`, raises Unreadable with the first."""
    for path, fault in bad:
        line = f"{show(path)}: {' '.join(fault.split())}"
        if strict:
            raise Unreadable(f"{line}; with --strict nothing is written")
        _say(f"skipped {line}")


def _say(line: str) -> None:
    with suppress(OSError):  # where messages go must not end the work
        click.echo(line, err=True)


def _finish(output: Printed | Partial) -> int:
    """Give the result its name. Return the exit code. Raises Refused if no file could be read."""
    done = output.progress
    if not done.rows:
        output.discard()
        raise Refused(f"of {done.files} files none could be read as an image; nothing is written")
    output.finish()
    skipped = done.files - done.rows
    if not skipped:
        return 0
    _say(f"{skipped} of {done.files} files were skipped")
    return SKIPPED


def _prepare(model: bytes, options: dict[str, Any]) -> tuple[Predictor, dict[str, Any]]:
    """Return what predicts, and what decides its rows, as JSON values. Raises Refused if the model is none."""
    import onnxruntime
    import PIL

    session = open_session(model, options["provider"], options["threads"] or 0)
    facts = read_facts(session)
    steps = read_preprocessing(facts)
    if steps is None:
        size = facts["image_size"]
        steps = assume(size)
        _say(
            "the model does not state how its images were prepared (an older export): the shorter side becomes "
            f"{size}, then the centre square is kept. Export it again (kedro run --tags=export,evaluate) to be sure"
        )
    shown = {key: options[key] for key in ("top_k", "threshold", "probabilities")}
    asked = {"model": digest_bytes(model), "provider": session.get_providers()[0], **shown}
    asked |= {key: options[key] for key in ("as_is", "strict")}
    asked |= {"onnxruntime": onnxruntime.__version__, "pillow": PIL.__version__, "ltpipe": version("ltpipe")}
    threads = options["threads"] or _count_cores()
    return Predictor(session, steps, Columns(facts["classes"], **shown), options["as_is"], threads), asked


def _count_cores() -> int:
    """Return the cores that this process may use, which may be fewer than the machine's (container, batch job)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _predict(model: Path, images: Sequence[Path], out: Path | None, options: dict[str, Any]) -> int:
    """Do what the command says; return its exit code."""
    ending = _check_ending(out)
    if options["resume"] and out is None:
        raise Refused("--resume goes on with a file: name it by --out")
    require_images(images)
    predictor, asked = _prepare(model.read_bytes(), options)
    asked["images"] = digest([write_name(path) for path in images])
    output = _open_output(out, predictor.columns, asked, options)
    try:
        _write_all(predictor, images, output, ending, options["strict"])
        return _finish(output)
    except Unreadable:
        output.discard()
        raise
    except Refused:
        output.kept()  # leaves no file if nothing is in it
        raise
    except KeyboardInterrupt:
        _say(f"interrupted after {output.progress.files} files; {output.kept()}")
        return INTERRUPTED


HELP = """Predict the class of each image, by a MODEL (.onnx) that ltpipe exported.

IMAGES are files, or folders, which are searched with all folders in them. An image of any size is brought to the
model's size as the images of its training and tests were: the model states how.

\b
One row an image, in the order of names:
  path, label, class, probability               of the most probable class; probability 0..1
  label_2, class_2, probability_2, ...          with --top-k, the next classes
  p_<class>, ...                                with --probabilities, every class
CSV in UTF-8. Bytes of a path that are not UTF-8 are written as \\xNN.

A file that cannot be read is skipped, and named on standard error with the reason.

With --out, rows are in OUT.part until all are there. After an interruption, a full disk or a crash, the same command
with --resume goes on, and its result is that of a run without a break.

\b
Exit code: 0    every file is predicted
           2    refused, or no file could be read: there is no result
           7    there is a result, without the files that were skipped
           130  interrupted

\b
Examples: ltpipe predict model.onnx photo.jpg
          ltpipe predict model.onnx photos/ --out predictions.parquet --top-k 3 --threads 4
          ltpipe predict model.onnx photos/ --out predictions.csv --resume
"""


@click.command("predict", help=HELP)
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help=f"File to write, by its ending: {', '.join(ENDINGS)}. Default: CSV on standard output.",
)
@click.option("--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Classes to name of an image.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Leave label and class empty (null in .jsonl and .parquet) if the probability is smaller.",
)
@click.option("--probabilities", is_flag=True, help="Add a column for each class.")
@click.option("--strict", is_flag=True, help="End at the first file that cannot be read, and write nothing.")
@click.option("--as-is", is_flag=True, help="Skip images that do not have the model's size; none is resized or cut.")
@click.option("--resume", is_flag=True, help="Go on with an --out that was cut off; if there is none, begin.")
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads that decode, and that predict. Default: the free cores."
)
@click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="auto: cuda if NVIDIA's driver is installed.",
)
def command(model: Path, images: tuple[Path, ...], out: Path | None, **options: Any) -> None:
    """Predict the class of each image (see HELP)."""
    with warnings.catch_warnings():
        # Pillow's, which do not name the file; what it cannot read is an error, and that is reported
        warnings.simplefilter("ignore")
        code = _predict(model, images, out, options)
    click.get_current_context().exit(code)


def _check_ending(out: Path | None) -> str:
    """Return the ending of --out, in lower case. Raises Refused if no format belongs to it."""
    if out is None:
        return ".csv"
    if (ending := out.suffix.lower()) not in ENDINGS:
        raise Refused(f"--out {show(out)}: the ending chooses the format; valid endings: {', '.join(ENDINGS)}")
    if ending == ".parquet" and find_spec("pyarrow") is None:  # said now, not after the last image
        raise Refused(
            f"--out {show(out)}: parquet needs the package pyarrow, which is not installed; take .csv or .jsonl"
        )
    return ending


def _open_output(
    out: Path | None, columns: Columns, asked: dict[str, Any], options: dict[str, Any]
) -> Printed | Partial:
    if out is None:
        return Printed(held=options["strict"])
    return Partial(out, columns, asked, options["resume"])


if __name__ == "__main__":
    command()
