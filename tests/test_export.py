"""The seeds of a run share one ONNX graph in a process; another run, network or size gets its own."""

import re
from pathlib import Path

import onnx
import pytest
import tiny
import torch

from ltpipe.models.model import Model
from ltpipe.recipe.run import Run, untrained
from ltpipe.serving import export

BLOCKS = {"run": Run(method="ce"), "model": tiny.MODEL, "counts": tiny.COUNTS, "size": tiny.SIZE}


@pytest.fixture
def traced(monkeypatch):
    """The sizes of the networks that were traced."""
    sizes = []
    monkeypatch.setattr(export, "trace", lambda servable, size: sizes.append(size) or object())
    monkeypatch.setattr(export, "_last", {})
    return sizes


def test_a_run_is_traced_once(traced):
    first = export.graph_of(**BLOCKS)
    copies = {"run": BLOCKS["run"].model_copy(), "model": BLOCKS["model"].model_copy(), "counts": list(tiny.COUNTS)}
    assert export.graph_of(**BLOCKS | copies) is first
    assert traced == [tiny.SIZE]


@pytest.mark.parametrize(
    "change",
    [
        {"run": Run(method="logit_adjust")},
        {"run": Run(method="logit_adjust", options={"form": "post_hoc"})},
        {"model": Model(backbone="cnn", image=tiny.SIZE, options={"width": 8})},
        {"model": tiny.MODEL.model_copy(update={"mean": (0.4, 0.5, 0.5)})},
        {"counts": (12, 7, 4, 3)},
        {"size": tiny.SIZE + 2},
    ],
    ids=["method", "option", "backbone", "pixels", "counts", "size"],
)
def test_another_graph_is_traced_for_whatever_it_depends_on(traced, change):
    first = export.graph_of(**BLOCKS)
    assert export.graph_of(**BLOCKS | change) is not first
    assert len(traced) == 2


def test_an_export_leaves_the_shared_graph_as_it_was():
    graph = export.trace(untrained(BLOCKS["run"], tiny.MODEL, tiny.COUNTS), tiny.SIZE)
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        networks.append(untrained(BLOCKS["run"], tiny.MODEL, tiny.COUNTS))
    first, second, again = (export.to_onnx(networks[number], {}, graph) for number in (0, 1, 0))
    assert first == again != second


# the model server's file in docs/docker.md, against a model of digits_glt as it is exported

TRITON = {"TYPE_UINT8": onnx.TensorProto.UINT8, "TYPE_FP32": onnx.TensorProto.FLOAT}


def test_the_config_of_a_model_server_names_the_tensors_of_an_exported_model(spec):
    page = (Path(__file__).parents[1] / "docs/docker.md").read_text()
    config = re.search(r"```text\n(name: \"digits\".*?)```", page, re.DOTALL).group(1)
    run, counts = Run(method="ce"), list(range(10, 0, -1))
    graph = onnx.load_from_string(
        export.to_onnx(untrained(run, spec.model, counts), {}, export.trace(untrained(run, spec.model, counts), 16))
    ).graph
    for side, tensors in (("input", graph.input), ("output", graph.output)):
        block = re.search(rf"^{side} \[(.*?)^\]", config, re.DOTALL | re.MULTILINE).group(1)
        stated = re.findall(r'name: "(\w+)", data_type: (\w+), dims: \[ ([\d, ]+) \]', block)
        found = []
        for tensor in tensors:
            of = tensor.type.tensor_type
            batch, *dims = of.shape.dim
            assert batch.dim_param, "the batch size is free, as max_batch_size needs"
            found.append((tensor.name, of.elem_type, [dim.dim_value for dim in dims]))
        assert [(name, TRITON[kind], [int(d) for d in dims.split(",")]) for name, kind, dims in stated] == found
