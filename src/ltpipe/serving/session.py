"""Predict with an exported model, by onnxruntime and numpy, without torch.

`ltpipe predict` and the stage `evaluate` both use it, so that the metrics are those of the model that is served.
"""

import ctypes
import json
from typing import Any

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.models.model import Model
from ltpipe.recipe.cell import exported_by, identity, predicted_by, require_cell
from ltpipe.recipe.run import Run
from ltpipe.recipe.schedule import Schedule
from ltpipe.storage.identity import digest_bytes
from ltpipe.storage.manifest import KEPT, class_names, data_version
from ltpipe.storage.table import Table

BATCH = 256  # images of one forward pass


def open_session(model: bytes, provider: str = "auto", threads: int = 0) -> Any:
    """Return an onnxruntime session on `provider`: cuda, cpu, or auto (cuda if a driver is installed).

    threads: of the processor, for one operator; 0: as many as onnxruntime chooses.

    Raises Refused if the model cannot be opened, or if CUDA was chosen and does not start: onnxruntime by itself falls
    back to the CPU without an error.
    """
    import onnxruntime as ort

    if provider == "auto":
        provider = "cuda" if _has_driver() else "cpu"
    providers = ["CPUExecutionProvider"]
    if provider == "cuda":
        ort.preload_dlls()  # torch does not bring every library that the CUDA provider needs
        providers = ["CUDAExecutionProvider", *providers]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(model, options, providers=providers)
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base class but Exception
        raise Refused(f"not a model that onnxruntime can open: {error}") from None
    if session.get_providers()[0] != providers[0]:
        raise Refused(f"onnxruntime could not start {providers[0]} (its message is above); choose --provider cpu")
    return session


def _has_driver() -> bool:
    """Tell whether NVIDIA's driver is installed; loading its library starts nothing on the GPU."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def read_facts(session: Any) -> dict[str, Any]:
    """Return the provenance that `export` wrote into the model: cell, seed, data, code, classes, preprocessing, ...

    Raises Refused if there is none.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    facts = {k.removeprefix("ltpipe."): json.loads(v) for k, v in metadata.items() if k.startswith("ltpipe.")}
    if "classes" not in facts:
        raise Refused("the model has no ltpipe metadata: it was not exported by ltpipe")
    return facts


def classify(session: Any, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted class and its probability for each of `rows`, N and N.

    images: uint8, M x H x W x 3, possibly mapped from a file: only one batch is read into memory at a time.
    """
    predicted, confidence = np.empty(len(rows), np.int64), np.empty(len(rows))
    for start in range(0, len(rows), BATCH):
        batch = slice(start, start + BATCH)
        probabilities = softmax(run_logits(session, images[rows[batch]]))
        predicted[batch], confidence[batch] = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return predicted, confidence


def run_logits(session: Any, images: np.ndarray) -> np.ndarray:
    """Return logits, float32, N x C; images: uint8, N x H x W x 3. No images give 0 x 0."""
    parts = [session.run(["logits"], {"image": images[i : i + BATCH]})[0] for i in range(0, len(images), BATCH)]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities, float64, N x C; logits: N x C."""
    # without the largest logit subtracted, exp would overflow; the quotient is the same
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def predict(
    onnx: bytes,
    manifest: Table,
    images: np.ndarray,
    run: Run,
    schedule: Schedule,
    model: Model,
    seed: int,
    parity: Any,
    checkpoint: bytes,
    *,
    cell: str,
) -> Table:
    """Return a table with a row for each val and test row of the manifest, in its order.

    Columns: those of the manifest that the metrics need, predicted (class index), confidence (its probability, 0..1).
    attrs["facts"]: the model's provenance, and the provider that ran it. checkpoint: the cell's. Raises Refused if the
    model is not of this cell, code and recipe, not exported by this code and `parity` from this checkpoint, or not of
    this manifest, its classes and images (uint8, N x H x W x 3).
    """
    session = open_session(onnx)
    facts = read_facts(session)
    if "precision" in facts:  # a copy has every other fact of its original
        raise Refused(
            f"the model of {cell} is the {facts['precision']} copy of another one (ltpipe quantise); measured is the "
            f"exported model. Export it again: kedro run --pipeline={cell.split('.')[0]} --tags=export,evaluate"
        )
    data = {"data": data_version(manifest, images), "classes": class_names(manifest)}
    made = exported_by(parity) | {"checkpoint": digest_bytes(checkpoint)}
    require_cell("the model", facts, identity(cell, run, schedule, model, seed) | data | made)
    rows = manifest[manifest["role"] != "train"]
    predicted, confidence = classify(session, images, rows["row"].to_numpy())
    table = rows[list(KEPT)].reset_index(drop=True)
    table["predicted"], table["confidence"] = predicted, confidence
    table.attrs = {"facts": facts | predicted_by() | {"provider": session.get_providers()[0]}}
    return table
