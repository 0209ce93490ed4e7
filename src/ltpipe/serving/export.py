"""Export a checkpoint as one ONNX file that takes raw images, and compare its answers with those of torch.

Input `image`: uint8, B x H x W x 3 (RGB), any B. H = W = the packed size (source.size); if the network takes smaller
images, the graph cuts out their centre. Outputs `logits` and `probabilities`: float32, B x C. Normalisation and the
method's predict() are part of the graph; class names, provenance and how pictures become such images are in its
metadata (ltpipe.serving.preprocessing).
"""

import json
import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.models.model import Model
from ltpipe.recipe.cell import exported_by, identity, require_cell
from ltpipe.recipe.run import Run, rebuild, untrained
from ltpipe.recipe.schedule import Schedule
from ltpipe.serving.preprocessing import describe
from ltpipe.storage.identity import digest_bytes
from ltpipe.storage.manifest import data_version
from ltpipe.storage.table import Table

OPSET = 20  # version of the ONNX operators


class Parity(Spec):
    """ONNX and torch agree if all predicted classes are equal, and all logits differ by little.

    The largest allowed difference of a logit is absolute + relative * |torch's logit|.
    """

    images: int = Field(512, ge=1, description="images to compare, spread evenly over the val and test rows")
    absolute: float = Field(1e-4, ge=0, description="allowed difference of a logit")
    relative: float = Field(1e-3, ge=0, description="further allowed difference, as a share of the logit's size")


class ParityFailed(Refused):
    """The exported model does not give the answers of the trained one."""

    exit_code = 5


def export(
    checkpoint: bytes,
    manifest: Table,
    images: np.ndarray,
    run: Run,
    schedule: Schedule,
    model: Model,
    seed: int,
    parity: Parity,
    *,
    cell: str,
) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of the ONNX model (the same for the same checkpoint) and the parity report.

    Raises ParityFailed if torch and onnxruntime disagree beyond `parity`; then no model is written. Raises Refused if
    the checkpoint is not of this cell, code and recipe, and of `manifest` and `images` (uint8, N x H x W x 3).
    """
    from ltpipe.storage.weights import unpack_facts

    asked = identity(cell, run, schedule, model, seed) | {"data": data_version(manifest, images)}
    require_cell("the checkpoint", unpack_facts(checkpoint), asked)  # before weights of another network are loaded
    servable, facts = rebuild(checkpoint, run, model)
    facts |= {"checkpoint": digest_bytes(checkpoint)} | exported_by(parity)
    size = images.shape[1]
    facts |= {"image_size": size, "preprocessing": describe(manifest, size, model.image).model_dump()}
    payload = to_onnx(servable, facts, graph_of(run, model, facts["classes_counts"], size))
    # an image that is in several test splits has several rows in the manifest
    rows = manifest.loc[manifest["role"] != "train", "row"].drop_duplicates().to_numpy()
    chosen = images[rows[np.linspace(0, len(rows) - 1, min(parity.images, len(rows))).astype(int)]]
    report = compare(servable, payload, chosen, parity)
    if not report["agrees"]:
        raise ParityFailed(f"{facts['cell']}: ONNX and torch disagree, no model is written: {json.dumps(report)}")
    return payload, asked | report


def to_onnx(servable: Any, facts: dict[str, Any], graph: Any) -> bytes:
    """Return an ONNX file, weights included, with `facts` as metadata (keys "ltpipe.<fact>", values as JSON).

    graph: that of `trace`, of any network that differs from `servable` in its weights alone.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from torch.onnx import ONNXProgram

    program = ONNXProgram(graph.clone(), None)
    initializers = program.model.graph.initializers
    program.apply_weights({k: v for k, v in servable.state_dict().items() if k in initializers})
    program.optimize()  # only now: it computes with the weights, e.g. merges batch normalisation into convolutions
    # The exporter records the source line of each node, with absolute paths of this machine.
    ClearMetadataAndDocStringPass()(program.model)
    for name, value in sorted((facts | {"opset": OPSET}).items()):
        program.model.metadata_props[f"ltpipe.{name}"] = json.dumps(value, sort_keys=True)
    payload: bytes = program.model_proto.SerializeToString(deterministic=True)
    return payload


_last: dict[str, Any] = {}  # the graph of the run that was exported last


def graph_of(run: Run, model: Model, counts: Sequence[int], size: int) -> Any:
    """Return the graph that all checkpoints of a run share, traced once for the run's cells in this process.

    counts: training images of each class. size: height and width of the images that it takes. The graph is that of an
    untrained network: no checkpoint can leave a trace in it.
    """
    key = repr((run.model_dump(), model.model_dump(), list(counts), size))
    if key not in _last:
        _last.clear()  # a graph holds weights, which may be large
        _last[key] = trace(untrained(run, model, counts), size)
    return _last[key]


def trace(servable: Any, size: int) -> Any:
    """Return the ONNX graph of a network as the exporter writes it, not optimised, with the network's weights."""
    import torch

    # The exporter warns that torchvision's operators are missing; no network here uses them.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with torch.no_grad():
        program = torch.onnx.export(
            servable,
            (torch.zeros(2, size, size, 3, dtype=torch.uint8),),  # torch.export would turn a batch of 1 into a constant
            dynamo=True,
            verbose=False,
            optimize=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits", "probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return program.model


def compare(servable: Any, payload: bytes, images: np.ndarray, parity: Parity) -> dict[str, Any]:
    """Return the parity report on `images` (uint8, N x H x W x 3).

    onnxruntime gets them in batches of 1, 2, 7, 64, 64, ..., because the batch size must not change an answer.
    """
    import onnxruntime as ort
    import torch

    session = ort.InferenceSession(payload, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        torch_logits = servable(torch.tensor(images))[0].numpy()
    sizes = [1, 2, 7] + [64] * (len(images) // 64 + 1)
    bounds = np.minimum(np.cumsum([0, *sizes]), len(images))
    parts = [images[a:b] for a, b in pairwise(bounds) if b > a]
    onnx_logits = np.concatenate([session.run(["logits"], {"image": part})[0] for part in parts])
    difference = np.abs(onnx_logits - torch_logits)
    same = int((onnx_logits.argmax(1) == torch_logits.argmax(1)).sum())
    close = bool((difference <= parity.absolute + parity.relative * np.abs(torch_logits)).all())
    return {
        "images": len(images),
        "argmax_equal": same,
        "largest_difference": float(difference.max()),
        "absolute": parity.absolute,
        "relative": parity.relative,
        "agrees": bool(same == len(images) and close),
    }
