"""`ltpipe predict`: the class of each image, by an exported model; onnxruntime and numpy, no torch.

ltpipe predict model.onnx IMAGE_OR_FOLDER... [--out predictions.csv]
"""

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.data.decode import decode
from ltpipe.serving.session import BATCH, open_session, read_facts, run_logits, softmax
from ltpipe.storage.atomic import write_atomically

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def _find_images(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            images = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not images:
                raise Refused(f"no image in {path}; endings looked for: {' '.join(SUFFIXES)}")
            yield from images
        else:
            yield path


def read_image(path: Path, size: int, resize: bool) -> np.ndarray:
    """Return an image file as uint8, size x size x 3, decoded as training images are.

    Raises Refused for another size, unless `resize`: the shorter side to `size`, then the centre square.
    """
    from PIL import Image

    try:
        with Image.open(path) as file:
            width, height = file.size
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise whatever they do
        raise Refused(f"cannot read {path} as an image: {error}") from None
    if (width, height) != (size, size) and not resize:
        raise Refused(f"{path} is {width} x {height}; the model takes {size} x {size} (or --resize)")
    return np.asarray(decode([path], size)[0])


def _write_text(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
        return
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise Refused(f"cannot write {out}: {error}") from None


@click.command("predict")
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="CSV to write; default: standard output.")
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--resize", is_flag=True, help="Resize and crop images of another size instead of refusing them.")
def command(model: Path, images: tuple[Path, ...], out: Path | None, provider: str, resize: bool) -> None:
    """Predict the class of each image (files, or folders searched for images): path, label, class, probability."""
    session = open_session(model.read_bytes(), provider)
    facts = read_facts(session)
    paths = list(_find_images(images))
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["path", "label", "class", "probability"])
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        pixels = np.stack([read_image(path, facts["image_size"], resize) for path in batch])
        chances = softmax(run_logits(session, pixels))
        for path, row in zip(batch, chances, strict=True):
            label = int(row.argmax())
            lines.writerow([path, label, facts["classes"][label], f"{row[label]:.6f}"])
    _write_text(text.getvalue(), out)


if __name__ == "__main__":
    command()
