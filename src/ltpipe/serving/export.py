"""Stage `export`: a checkpoint as one ONNX file that takes raw images, and a parity report against torch.

Input  `image`: uint8, batch x H x W x 3 (RGB), batch dynamic, H = W = the packed size (source.size), of which the
graph takes the centre where the network is smaller. Outputs `logits` and `probabilities`: float32,
batch x C. Normalisation and the method's predict() are inside the graph; names and provenance are its metadata.
"""

import json
import logging
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.models.model import Model
from ltpipe.recipe.run import Run, rebuild
from ltpipe.storage.manifest import data_version
from ltpipe.storage.table import Table

OPSET = 20


class Parity(Spec):
    """When ONNX and torch agree: every argmax equal, and |difference| <= absolute + relative * |torch| on logits."""

    images: int = Field(512, ge=1, description="real images compared, spread over the manifest's val and test rows")
    absolute: float = Field(1e-4, ge=0)
    relative: float = Field(1e-3, ge=0)


class ParityFailed(Refused):
    """The exported model does not answer as the trained one."""

    exit_code = 5


def export(
    checkpoint: bytes, manifest: Table, images: np.ndarray, run: Run, model: Model, parity: Parity
) -> tuple[bytes, dict[str, Any]]:
    """The ONNX model's bytes (the same for the same checkpoint) and the parity report.

    Raises ParityFailed, and writes no model, where torch and onnxruntime disagree beyond `parity`.
    """
    servable, facts = rebuild(checkpoint, run, model)
    if facts["data"] != (found := data_version(manifest, images)):
        raise Refused(f"the checkpoint was trained on data {facts['data']}, the manifest is {found}: train again")
    payload = to_onnx(servable, facts, images.shape[1])
    rows = manifest.loc[manifest["role"] != "train", "row"].drop_duplicates().to_numpy()
    chosen = images[rows[np.linspace(0, len(rows) - 1, min(parity.images, len(rows))).astype(int)]]
    report = compare(servable, payload, chosen, parity)
    if not report["agrees"]:
        raise ParityFailed(f"{facts['cell']}: ONNX and torch disagree, no model is written: {json.dumps(report)}")
    return payload, report


def to_onnx(servable: Any, facts: dict[str, Any], size: int) -> bytes:
    """One self-contained ONNX file with `facts` as metadata (keys "ltpipe.<fact>", JSON values).

    size: height and width of the images it takes.
    """
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    # it warns of torchvision's operators, which no network here uses
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with torch.no_grad():
        program = torch.onnx.export(
            servable,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),  # a batch of 1 would be taken for a constant
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits", "probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    # the exporter notes the source line of each node, with absolute paths
    ClearMetadataAndDocStringPass()(program.model)
    for name, value in sorted((facts | {"opset": OPSET, "image_size": size}).items()):
        program.model.metadata_props[f"ltpipe.{name}"] = json.dumps(value, sort_keys=True)
    payload: bytes = program.model_proto.SerializeToString(deterministic=True)
    return payload


def compare(servable: Any, payload: bytes, images: np.ndarray, parity: Parity) -> dict[str, Any]:
    """Parity report on `images` (uint8, N x H x W x 3), in batches of 1, 2, 7 and 64: the batch must not matter."""
    import onnxruntime as ort
    import torch

    session = ort.InferenceSession(payload, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = servable(torch.tensor(images))[0].numpy()
    sizes = [1, 2, 7] + [64] * (len(images) // 64 + 1)
    bounds = np.minimum(np.cumsum([0, *sizes]), len(images))
    parts = [images[a:b] for a, b in pairwise(bounds) if b > a]
    found = np.concatenate([session.run(["logits"], {"image": part})[0] for part in parts])
    difference = np.abs(found - wanted)
    same = int((found.argmax(1) == wanted.argmax(1)).sum())
    close = bool((difference <= parity.absolute + parity.relative * np.abs(wanted)).all())
    return {
        "images": len(images),
        "argmax_equal": same,
        "largest_difference": float(difference.max()),
        "absolute": parity.absolute,
        "relative": parity.relative,
        "agrees": bool(same == len(images) and close),
    }
