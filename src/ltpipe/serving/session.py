"""Answers of an exported model; onnxruntime and numpy, no torch. The stage `evaluate` predicts here."""

import ctypes
import json
from typing import Any

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.storage.manifest import data_version
from ltpipe.storage.table import Table

BATCH = 256


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


def read_facts(session: Any) -> dict[str, Any]:
    """Provenance that `export` wrote: cell, seed, data, code, classes, image_size, ..."""
    metadata = session.get_modelmeta().custom_metadata_map
    facts = {k.removeprefix("ltpipe."): json.loads(v) for k, v in metadata.items() if k.startswith("ltpipe.")}
    if "classes" not in facts:
        raise Refused("the model has no ltpipe metadata: it was not exported by ltpipe")
    return facts


def classify(session: Any, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class index and its probability for each of `rows` of the images, N; in memory a batch of images at once."""
    predicted, confidence = np.empty(len(rows), np.int64), np.empty(len(rows))
    for start in range(0, len(rows), BATCH):
        batch = slice(start, start + BATCH)
        chances = softmax(run_logits(session, images[rows[batch]]))
        predicted[batch], confidence[batch] = chances.argmax(axis=1), chances.max(axis=1)
    return predicted, confidence


def run_logits(session: Any, images: np.ndarray) -> np.ndarray:
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
    facts = read_facts(session)
    if facts["data"] != (found := data_version(manifest, images)):
        raise Refused(f"the model was trained on data {facts['data']}, the manifest is {found}: export again")
    rows = manifest[manifest["role"] != "train"]
    predicted, confidence = classify(session, images, rows["row"].to_numpy())
    table = rows[["id", "source", "split", "label", "group", "attribute"]].reset_index(drop=True)
    table["predicted"], table["confidence"] = predicted, confidence
    table.attrs = {"facts": facts | {"provider": session.get_providers()[0]}}
    return table
