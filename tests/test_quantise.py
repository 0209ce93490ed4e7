"""`ltpipe quantise`: int8 and fp16 copies answer as the model does; calibration sees validation pictures alone."""

import json

import numpy as np
import onnx
import pandas as pd
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ltpipe import compare, quantise
from ltpipe.commands import main
from ltpipe.serving.session import open_session, read_facts, run_logits
from ltpipe.storage.identity import digest_bytes
from ltpipe.storage.manifest import COLUMNS, data_version

CLASSES = ["red", "green", "blue"]
SIZE = 4


def nodes():
    """A network that answers the brightest channel: pixels to 0..1, a convolution, a mean, a layer, softmax."""
    return [
        helper.make_node("Cast", ["image"], ["pixels"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels", "scale"], ["small"], "div"),
        helper.make_node("Transpose", ["small"], ["channels"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels", "kernel"], ["found"], "conv"),
        helper.make_node("Relu", ["found"], ["positive"], "relu"),
        helper.make_node("ReduceMean", ["positive", "axes"], ["mean"], "reduce", keepdims=0),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"], "head", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
    ]


def build(facts, layers=True):
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in ("logits", "probabilities")]
    sizes = np.array([1, 0.6, 0.3], np.float32)
    constants = {
        "scale": np.float32(255),
        "kernel": np.diag(sizes)[:, :, None, None],
        "axes": np.array([2, 3]),
        "weight": np.diag(20 / sizes),
        "bias": np.zeros(3, np.float32),
    }
    kept = nodes()
    if not layers:
        kept = [kept[0], helper.make_node("ReduceMean", ["pixels", "axes"], ["logits"], keepdims=0), kept[-1]]
        constants["axes"] = np.array([1, 2])
    graph = helper.make_graph(
        kept, "tiny", [image], outputs, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {f"ltpipe.{key}": json.dumps(value) for key, value in facts.items()})
    return model.SerializeToString()


def make_data(folder):
    """30 pictures of val, 200 of test, 70 of train: the channel of the class has 140 to 250, the others 10 to 120."""
    random = np.random.RandomState(0)
    labels = np.arange(300) % 3
    roles = ["val"] * 30 + ["test"] * 200 + ["train"] * 70
    rows = [
        dict.fromkeys(COLUMNS, "") | {"id": f"{role}/{n}", "source": f"o{n}", "split": role, "role": role, "row": n}
        for n, role in enumerate(roles)
    ]
    manifest = pd.DataFrame(rows).assign(label=labels, attribute=-1)
    manifest["class_name"] = [CLASSES[c] for c in labels]
    manifest["group"] = [("many", "medium", "few")[c] for c in labels]
    images = random.randint(10, 121, (300, SIZE, SIZE, 3)).astype(np.uint8)
    images[np.arange(300), :, :, labels] += 130
    folder.mkdir()
    manifest.to_parquet(folder / "manifest.parquet")
    np.save(folder / "images.npy", images)
    return {
        "cell": "tiny.ce.s0",
        "classes": CLASSES,
        "data": data_version(manifest, images),
        "preprocessing": {"size": SIZE, "network": SIZE, "jpeg": "shrunk"},
        "checkpoint": "c",
    }


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with model.onnx and data/; commands run in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").write_bytes(build(make_data(tmp_path / "data")))
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(quantise.command, [*map(str, arguments)])


def make(precision, out="out.onnx", *more):
    needed = ["--data", "data"] if precision == "int8" else []
    done = run("model.onnx", "--precision", precision, "--out", out, *needed, *more)
    assert done.exit_code == 0, done.output
    return done


def compared(*arguments):
    words = ["model.onnx", "out.onnx", "--data", "data", "--split", "test", "--provider", "cpu", *arguments]
    return CliRunner().invoke(compare.command, [*map(str, words)])


def tensors(values):
    return [(v.name, v.type.tensor_type.elem_type, str(v.type.tensor_type.shape)) for v in values]


both = pytest.mark.parametrize("precision", ["int8", "fp16"])


@both
def test_the_copy_answers_as_the_model_does(work, precision):
    make(precision)
    done = compared("--max-fall", 1, "--out", "compare.json")
    assert done.exit_code == 0, done.output
    found = json.loads((work / "compare.json").read_text())
    assert found["right_to_wrong"]["n"] + found["wrong_to_right"]["n"] <= 2  # of 200
    images = np.load("data/images.npy")
    old, new = (run_logits(open_session((work / n).read_bytes(), "cpu"), images) for n in ("model.onnx", "out.onnx"))
    assert 0 < np.abs(old - new).max() < 0.5  # of 20; it is another model, and close


@pytest.mark.parametrize(
    "words",
    [
        ["quantise", "model.onnx", "--precision", "int8", "--out", "model.int8.onnx"],
        ["quantise", "model.onnx", "--precision", "fp16", "--out", "model.fp16.onnx"],
        ["compare", "model.onnx", "model.int8.onnx", "--split", "test", "--max-fall", "1"],
        ["latency", "model.int8.onnx", "--threads", "1"],
        ["predict", "model.int8.onnx", "image.png"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_the_commands_of_the_page_take_a_copy_and_find_the_data_by_the_model(work, words):
    (work / "data").rename("moved")
    (work / "data/05_model_input").mkdir(parents=True)
    (work / "moved").rename("data/05_model_input/tiny")
    Image.new("RGB", (SIZE, SIZE), (0, 200, 0)).save("image.png")
    if words[0] != "quantise":
        done = CliRunner().invoke(main, ["quantise", "model.onnx", "--precision", "int8", "--out", "model.int8.onnx"])
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert words[0] != "predict" or "green" in done.output


@both
def test_inputs_and_outputs_keep_names_and_types(work, precision):
    make(precision)
    old, new = (onnx.load(name).graph for name in ("model.onnx", "out.onnx"))
    assert tensors(old.input) == tensors(new.input) and tensors(old.output) == tensors(new.output)


def kinds(graph):
    """The type of each tensor of the graph as onnx infers it."""
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True).graph
    known = [*inferred.value_info, *inferred.output, *inferred.input]
    return {v.name: v.type.tensor_type.elem_type for v in known} | {c.name: c.data_type for c in inferred.initializer}


def chain(model, tensor):
    """Nodes from the one that makes a tensor up to the image, by their first inputs: (type, type of the output)."""
    kind, made_by = kinds(model), {tensor: node for node in model.graph.node for tensor in node.output}
    found = []
    while tensor in made_by:
        node = made_by[tensor]
        found.append((node.op_type, kind[tensor]))
        tensor = node.input[0]
    return [step for step in found if step != ("Cast", TensorProto.FLOAT)]  # as the first step is, and copies are


FLOAT, HALF, BYTE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
PIXELS = [("Transpose", FLOAT), ("Div", FLOAT)]


@both
def test_pixels_and_softmax_stay_in_float_and_layers_do_not(work, precision):
    make(precision)
    model = onnx.load("out.onnx")
    onnx.checker.check_model(model, full_check=True)
    by_name = {node.name: node for node in model.graph.node}
    turn = [("Cast", HALF)] if precision == "fp16" else [("DequantizeLinear", FLOAT), ("QuantizeLinear", BYTE)]
    assert chain(model, by_name["conv"].input[0]) == turn + PIXELS
    mean = [("ReduceMean", HALF)] if precision == "fp16" else [*turn, ("ReduceMean", FLOAT)]
    assert chain(model, by_name["head"].input[0])[: len(mean)] == mean
    # no step between the layer and the softmax: 256 levels would make equals of logits that differ
    head = ("Gemm", HALF if precision == "fp16" else FLOAT)
    assert chain(model, "probabilities")[:2] == [("Softmax", FLOAT), head]


def test_weights_of_int8_have_a_scale_for_each_channel(work):
    make("int8")
    constants = {c.name: numpy_helper.to_array(c) for c in onnx.load("out.onnx").graph.initializer}
    assert constants["kernel_scale"].shape == constants["weight_scale"].shape == (3,)
    assert constants["kernel_quantized"].dtype == np.int8 and np.abs(constants["kernel_quantized"]).max() <= 64


@both
def test_metadata_are_the_model_s_and_say_what_was_done(work, precision):
    make(precision)
    old, new = (read_facts(open_session((work / n).read_bytes(), "cpu")) for n in ("model.onnx", "out.onnx"))
    added = {"precision": precision, "quantised_from": digest_bytes((work / "model.onnx").read_bytes())}
    if precision == "int8":
        added["calibration"] = {"split": "val", "images": 30}
    assert new == old | added
    assert all(prop.key.startswith("ltpipe.") for prop in onnx.load("out.onnx").metadata_props)


@both
def test_the_same_model_becomes_the_same_bytes(work, precision):
    make(precision)
    make(precision, "again.onnx")
    assert (work / "out.onnx").read_bytes() == (work / "again.onnx").read_bytes()


def spoil(role, value):
    """Overwrite the pictures of a role, and leave the manifest; the model is of the new data."""
    manifest, images = pd.read_parquet("data/manifest.parquet"), np.load("data/images.npy")
    images[manifest.loc[manifest["role"] == role, "row"]] = value
    np.save("data/images.npy", images)
    model = onnx.load("model.onnx")
    facts = {p.key.removeprefix("ltpipe."): json.loads(p.value) for p in model.metadata_props}
    facts["data"] = data_version(manifest, images)
    helper.set_model_props(model, {f"ltpipe.{key}": json.dumps(value) for key, value in facts.items()})
    onnx.save(model, "model.onnx")


def ranges():
    """Scales of the activations, by which one sees what calibration saw."""
    constants = {c.name: numpy_helper.to_array(c) for c in onnx.load("out.onnx").graph.initializer}
    return {name: float(v) for name, v in constants.items() if name.endswith("_scale") and v.ndim == 0}


@pytest.mark.parametrize("role", ["test", "train"])
def test_calibration_reads_validation_pictures_alone(work, role):
    make("int8")
    before = ranges()
    spoil(role, 255)
    make("int8")
    assert before and ranges() == before


def test_calibration_reads_validation_pictures(work):
    make("int8")
    before = ranges()
    spoil("val", 255)
    make("int8")
    assert ranges() != before


def test_a_copy_calibrated_on_black_pictures_falls_through_the_gate(work):
    spoil("val", 0)
    make("int8")
    done = compared("--max-fall", 1)
    assert done.exit_code == 3 and "of few fell by" in done.output


@pytest.mark.parametrize(("count", "rows"), [(2, [0, 29]), (3, [0, 14, 29]), (99, list(range(30)))])
def test_pictures_are_spread_over_the_split(work, count, rows):
    manifest, images = pd.read_parquet("data/manifest.parquet"), np.load("data/images.npy")
    assert np.array_equal(quantise.choose_images(manifest, images, "val", count), images[rows])


def without_model_input(work):
    (work / "data/images.npy").unlink()


def with_other_data(work):
    np.save("data/images.npy", np.zeros((300, SIZE, SIZE, 3), np.uint8))


def with_no_layer(work):
    facts = read_facts(open_session((work / "model.onnx").read_bytes(), "cpu"))
    (work / "model.onnx").write_bytes(build(facts, layers=False))


def with_a_copy(work):
    make("fp16", "model2.onnx")
    (work / "model2.onnx").replace("model.onnx")


def with_no_model(work):
    (work / "model.onnx").write_bytes(b"no model")


@pytest.mark.parametrize(
    ("spoilt", "words", "message"),
    [
        (None, [], "no manifest.parquet in data/05_model_input/tiny: name the folder of the benchmark's model input"),
        (without_model_input, ["--data", "data"], "no images.npy in data: name the folder"),
        (with_other_data, ["--data", "data"], "model.onnx is not of the data in data: data "),
        (None, ["--data", "data", "--split", "test"], "ranges are taken from validation pictures alone; valid: val"),
        (None, ["--data", "data", "--split", "train"], "ranges are taken from validation pictures alone; valid: val"),
        (with_no_layer, ["--data", "data"], "the model has no layer to quantise (Conv, Gemm, MatMul)"),
        (with_a_copy, ["--data", "data"], "model.onnx is fp16 already: quantise the model that it came from"),
        (with_no_model, ["--data", "data"], "not a model that onnxruntime can open"),
        (None, ["--data", "data", "--out", "./model.onnx"], "--out model.onnx is the model itself"),
        (None, ["--data", "data", "--out", "model.onnx/out.onnx"], "cannot write model.onnx/out.onnx: "),
    ],
)
def test_what_cannot_be_quantised_is_refused_in_one_message(work, spoilt, words, message):
    if spoilt:
        spoilt(work)
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    done = run("model.onnx", "--precision", "int8", "--out", "out.onnx", *words)
    assert done.exit_code == 2 and message in done.output, done.output
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before


@both
def test_a_copy_is_never_half_written(work, precision, monkeypatch):
    (work / "out.onnx").write_bytes(b"old")
    monkeypatch.setattr(quantise, "open_session", fail_for_a_copy)
    done = CliRunner().invoke(
        quantise.command, ["model.onnx", "--precision", precision, "--out", "out.onnx", "--data", "data"]
    )
    assert done.exit_code != 0 and (work / "out.onnx").read_bytes() == b"old"
    assert sorted(path.name for path in work.iterdir()) == ["data", "model.onnx", "out.onnx"]


def fail_for_a_copy(content, provider):
    session = open_session(content, provider)
    if "precision" in read_facts(session):
        raise RuntimeError("as if onnxruntime could not open it")
    return session
