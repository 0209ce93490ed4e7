"""Images to predictions by an exported model; onnxruntime and numpy, no torch.

    python -m ltpipe.predict model.onnx IMAGE_OR_FOLDER... [--out predictions.csv]

The stage `evaluate` uses the same session on the manifest's val and test rows.
"""

import csv
import ctypes
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ltpipe.atomic import write
from ltpipe.data.decode import decode
from ltpipe.data.manifest import data_version
from ltpipe.data.tables import Table
from ltpipe.specs import Refused

BATCH = 256
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def open_session(model: bytes, provider: str = "auto") -> Any:
    """An onnxruntime session on `provider`: cuda, cpu, or auto (cuda where a driver is installed).

    Raises Refused where CUDA was chosen and does not start: onnxruntime by itself falls back to the CPU in silence.
    """
    import onnxruntime as ort

    if provider == "auto":
        provider = "cuda" if _has_driver() else "cpu"
    wanted = ["CPUExecutionProvider"]
    if provider == "cuda":
        ort.preload_dlls()  # torch does not bring every library that the CUDA provider needs
        wanted = ["CUDAExecutionProvider", *wanted]
    try:
        session = ort.InferenceSession(model, providers=wanted)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no class of their own
        raise Refused(f"not a model that onnxruntime can open: {error}") from None
    if session.get_providers()[0] != wanted[0]:
        raise Refused(f"onnxruntime could not start {wanted[0]} (its message is above); choose --provider cpu")
    return session


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def facts_of(session: Any) -> dict[str, Any]:
    """Provenance that `export` wrote: cell, seed, data, code, classes, image_size, ..."""
    metadata = session.get_modelmeta().custom_metadata_map
    facts = {k.removeprefix("ltpipe."): json.loads(v) for k, v in metadata.items() if k.startswith("ltpipe.")}
    if "classes" not in facts:
        raise Refused("the model has no ltpipe metadata: it was not exported by ltpipe")
    return facts


def answers(session: Any, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class index and its probability for each of `rows` of the images, N; in memory a batch of images at once."""
    predicted, confidence = np.empty(len(rows), np.int64), np.empty(len(rows))
    for start in range(0, len(rows), BATCH):
        batch = slice(start, start + BATCH)
        chances = softmax(logits_of(session, images[rows[batch]]))
        predicted[batch], confidence[batch] = chances.argmax(axis=1), chances.max(axis=1)
    return predicted, confidence


def logits_of(session: Any, images: np.ndarray) -> np.ndarray:
    """Logits, float32 N x C; images: uint8, N x H x W x 3."""
    parts = [session.run(["logits"], {"image": images[i : i + BATCH]})[0] for i in range(0, len(images), BATCH)]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64 N x C."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    normal: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return normal


def predict(model: bytes, manifest: Table, images: np.ndarray) -> Table:
    """One row for each val and test row of the manifest, in its order; `attrs` holds the model's provenance.

    Columns: those of the manifest that judging needs, predicted (class index), confidence (its probability, 0..1).
    Raises Refused where the model was trained on other data than this manifest.
    """
    session = open_session(model)
    facts = facts_of(session)
    if facts["data"] != (found := data_version(manifest, images)):
        raise Refused(f"the model was trained on data {facts['data']}, the manifest is {found}: export again")
    rows = manifest[manifest["role"] != "train"]
    predicted, confidence = answers(session, images, rows["row"].to_numpy())
    table = rows[["id", "source", "split", "label", "group", "attribute"]].reset_index(drop=True)
    table["predicted"], table["confidence"] = predicted, confidence
    table.attrs = {"facts": facts | {"provider": session.get_providers()[0]}}
    return table


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise Refused(f"no image in {path}; endings looked for: {' '.join(SUFFIXES)}")
            yield from found
        else:
            yield path


def read(path: Path, size: int, resize: bool) -> np.ndarray:
    """An image file as uint8 size x size x 3, decoded as training images are.

    Another size is refused unless `resize`: shorter side to `size`, then the centre square.
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


def _write(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
        return
    try:
        write(out, text.encode())
    except OSError as error:
        raise Refused(f"cannot write {out}: {error}") from None


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="CSV to write; default: standard output.")
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--resize", is_flag=True, help="Resize and crop images of another size instead of refusing them.")
def main(model: Path, images: tuple[Path, ...], out: Path | None, provider: str, resize: bool) -> None:
    """Predict the class of each image (files, or folders searched for images): path, label, class, probability."""
    session = open_session(model.read_bytes(), provider)
    facts = facts_of(session)
    paths = list(_files(images))
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["path", "label", "class", "probability"])
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        pixels = np.stack([read(path, facts["image_size"], resize) for path in batch])
        chances = softmax(logits_of(session, pixels))
        for path, row in zip(batch, chances, strict=True):
            label = int(row.argmax())
            lines.writerow([path, label, facts["classes"][label], f"{row[label]:.6f}"])
    _write(text.getvalue(), out)


if __name__ == "__main__":
    main()
