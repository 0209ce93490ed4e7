"""`ltpipe quantise`: an int8 or fp16 copy of an exported model, by onnxruntime's quantisation; no torch.

ltpipe quantise model.onnx --precision int8 --out model.int8.onnx

The copy takes and gives what the model does: names, types, class names, preprocessing. What comes before the first
layer (pixels) and the softmax stay in float. Whether the copy is good enough is for `ltpipe compare --max-fall` to say.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.serving.files import show
from ltpipe.serving.model_input import read_model_input
from ltpipe.serving.session import open_session, read_facts
from ltpipe.storage.atomic import write_atomically
from ltpipe.storage.identity import digest_bytes
from ltpipe.storage.table import Table

LAYERS = ("Conv", "Gemm", "MatMul")  # operators with weights
# what int8 takes: layers, and what stands between them, so that a network is not turned to float and back after each
INT8 = (*LAYERS, "Relu", "MaxPool")
BATCH = 64  # images of one forward pass of the calibration


class Batches:
    """Images, uint8, N x H x W x 3, as onnxruntime's calibration asks for them."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


def choose_images(manifest: Table, images: np.ndarray, split: str, count: int) -> np.ndarray:
    """Return at most `count` images of a split, spread evenly over its rows.

    Raises Refused if it is no validation split: a model that has seen test pictures cannot be judged by them, and
    training pictures look more certain to a network than new ones.
    """
    valid = sorted(manifest.loc[manifest["role"] == "val", "split"].unique())
    if split not in valid:
        said = f"valid: {', '.join(valid)}" if valid else "the data have none"
        raise Refused(f"--split {split}: ranges are taken from validation pictures alone; {said}")
    rows = manifest.loc[manifest["split"] == split, "row"].drop_duplicates().to_numpy()
    return images[rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]]


def find_float(graph: Any) -> list[str]:
    """Return the nodes that stay in float: those that depend on no layer (the pixels' preprocessing), and softmax.

    Raises Refused if the graph has no layer.
    """
    behind: set[str] = set()  # tensors that depend on a layer; the nodes of a graph stand in the order of their use
    kept = []
    for node in graph.node:
        if node.op_type in LAYERS or behind & {*node.input}:
            behind |= {*node.output}
        if node.op_type == "Softmax" or not behind & {*node.output}:
            kept.append(node.name)
    if not behind:
        raise Refused(f"the model has no layer to quantise ({', '.join(LAYERS)})")
    return kept


def to_int8(model: Any, images: np.ndarray) -> Any:
    """Return the model with weights and activations of 8 bits; activations have their ranges on `images`."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    kept = find_float(model.graph)
    add_pre_process_metadata(model)  # else onnxruntime warns: export has optimised the graph already
    with TemporaryDirectory() as folder:  # onnxruntime writes files alone
        quantize_static(
            model,
            f"{folder}/int8.onnx",
            Batches(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(INT8),
            nodes_to_exclude=kept,
            per_channel=True,
            # weights of 7 bits: processors without VNNI add products of 8 bits in 16, which overflow
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # 256 levels of logits would make equals of the best two classes; a product of activations has no weight
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"], "MatMulConstBOnly": True},
        )
        return onnx.load(f"{folder}/int8.onnx")


def to_fp16(model: Any) -> Any:
    """Return the model with weights and activations of 16 bits; inputs and outputs are those of the model."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = convert_float_to_float16(model, keep_io_types=True, node_block_list=find_float(model.graph))
    join_float(model.graph)
    tidy = OnnxModel(model)
    tidy.prune_graph()  # the casts that nothing uses any more
    tidy.topological_sort()  # the converter appends its casts at the end, which ONNX does not allow
    tidy.clean_shape_infer()  # it also leaves types that are no longer true
    return model


def join_float(graph: Any) -> None:
    """Let each cast back to 32 bits read what the cast to 16 bits before it read.

    The converter puts both between two float nodes, and before an output: pixels and probabilities would be rounded.
    """
    from onnx import TensorProto

    casts = [(node, node.attribute[0].i) for node in graph.node if node.op_type == "Cast"]
    halves = {node.output[0]: node.input[0] for node, kind in casts if kind == TensorProto.FLOAT16}
    for node, kind in casts:
        if kind == TensorProto.FLOAT:
            node.input[0] = halves.get(node.input[0], node.input[0])


def with_metadata(quantised: Any, original: Any, facts: dict[str, Any]) -> bytes:
    """Return the bytes of a quantised model with the metadata of the original, and more facts (ltpipe.<fact>)."""
    from onnx.helper import set_model_props

    metadata = {prop.key: prop.value for prop in original.metadata_props}
    del quantised.metadata_props[:]  # onnxruntime notes what it did; the facts say it
    set_model_props(quantised, metadata | {f"ltpipe.{k}": json.dumps(v) for k, v in facts.items()})
    payload: bytes = quantised.SerializeToString(deterministic=True)
    return payload


def quantise(content: bytes, precision: str, images: np.ndarray | None, facts: dict[str, Any]) -> bytes:
    """Return the bytes of the copy. images: for the ranges of int8. facts: to add to the model's.

    Raises Refused if the model has no layer, or if onnxruntime cannot open what came out.
    """
    import onnx

    original, model = (onnx.load_from_string(content) for _ in range(2))  # the converters change what they get
    quantised = to_fp16(model) if images is None else to_int8(model, images)
    payload = with_metadata(
        quantised, original, {"precision": precision, "quantised_from": digest_bytes(content)} | facts
    )
    open_session(payload, "cpu")
    return payload


@click.command("quantise")
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--precision", type=click.Choice(["int8", "fp16"]), required=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="ONNX file to write.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="int8: folder with manifest.parquet and images.npy. Default: data/05_model_input/ and the model's benchmark.",
)
@click.option("--split", default="val", show_default=True, help="int8: validation split for the activations' ranges.")
@click.option("--images", type=click.IntRange(min=1), default=256, show_default=True, help="int8: at most so many.")
def command(model: Path, precision: str, out: Path, data: Path | None, split: str, images: int) -> None:
    """Write a copy of MODEL (.onnx) with smaller numbers.

    int8: 8 bits, for processors; the ranges of the activations are measured on validation pictures of the model's own
    data. fp16: 16 bits, for GPUs; no data are needed. Judge the copy: ltpipe compare MODEL OUT --split test_gbl
    --max-fall 1.
    """
    if out.exists() and out.samefile(model):
        raise Refused(f"--out {show(out)} is the model itself, which judges the copy: name another file")
    content = model.read_bytes()
    facts = read_facts(open_session(content, "cpu"))
    if "precision" in facts:
        raise Refused(f"{show(model)} is {facts['precision']} already: quantise the model that it came from")
    chosen, added = None, {}
    if precision == "int8":
        chosen = choose_images(*read_model_input({show(model): facts}, data), split, images)
        added = {"calibration": {"split": split, "images": len(chosen)}}
    payload = quantise(content, precision, chosen, added)
    try:
        write_atomically(out, payload)
    except OSError as error:
        raise Refused(f"cannot write {show(out)}: {error.strerror}") from None
    click.echo(f"{show(out)}: {precision}, {len(payload) / 1e6:.2f} MB; {show(model)}: {len(content) / 1e6:.2f} MB")


if __name__ == "__main__":
    command()
