"""`ltpipe compare`: two tables or models with known answers, what is refused, and the exit codes."""

import json

import numpy as np
import onnx
import pandas as pd
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from ltpipe.compare import command
from ltpipe.storage.manifest import COLUMNS, data_version

CLASSES = ["red", "green", "blue"]
SIZE = 4


def build(path, facts, size=SIZE, prefer=None):
    """A model that answers the brightest channel; `prefer` is a class that it answers always."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", size, size, 3])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in ("logits", "probabilities")]
    bias = np.zeros(3, np.float32)
    if prefer is not None:
        bias[prefer] = 1000
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("bias", TensorProto.FLOAT, [3], bias),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {f"ltpipe.{key}": json.dumps(value) for key, value in facts.items()})
    path.write_bytes(model.SerializeToString())
    return path


def make_data(folder, size=SIZE):
    """Manifest and packed images of a split test with 4 red, 2 green and 1 blue picture, and one of val."""
    labels = [0, 0, 0, 0, 1, 1, 2, 0]
    rows = [
        dict.fromkeys(COLUMNS, "") | {"id": f"{s}/{n}", "source": f"o{n}", "split": s, "role": s, "row": n, "label": c}
        for n, (c, s) in enumerate(zip(labels, ["test"] * 7 + ["val"], strict=True))
    ]
    manifest = pd.DataFrame(rows)
    manifest["class_name"] = [CLASSES[c] for c in labels]
    manifest["group"] = [("many", "medium", "few")[c] for c in labels]
    manifest["attribute"] = -1
    images = np.zeros((8, size, size, 3), np.uint8)
    images[np.arange(8), :, :, labels] = 200
    folder.mkdir()
    manifest.to_parquet(folder / "manifest.parquet")
    np.save(folder / "images.npy", images)
    return {"classes": CLASSES, "data": data_version(manifest, images), "cell": "a.b.c", "image_size": size}


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data", make_data(tmp_path / "data")


def table(path, facts, wrong=(), split="test"):
    """Predictions of a split, right but for the pictures `wrong`, in a cell's folder."""
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    predicted = np.where(np.isin(np.arange(7), wrong), (labels + 1) % 3, labels)
    rows = pd.DataFrame({"id": [f"{split}/{n}" for n in range(7)], "source": [f"o{n}" for n in range(7)]})
    rows = rows.assign(split=split, label=labels, attribute=-1, predicted=predicted, confidence=1.0)
    rows["group"] = [("many", "medium", "few")[c] for c in labels]
    rows.attrs = {"facts": facts}
    path.mkdir()
    rows.to_parquet(path / "predictions.parquet")
    return path


FACTS = {"classes": CLASSES, "data": "one", "cell": "a.b.c"}


def run(*arguments):
    return CliRunner().invoke(command, [*map(str, arguments), "--provider", "cpu"])


def test_two_folders_are_compared_by_part_class_and_picture(tmp_path):
    a, b = table(tmp_path / "a", FACTS, wrong=[0]), table(tmp_path / "b", FACTS, wrong=[1, 4, 6])
    done = run(a, b, "--out", tmp_path / "out.json", "--names", 2)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["right_to_wrong"] == {"n": 3, "first": ["test/1", "test/4"]}
    assert found["wrong_to_right"] == {"n": 1, "first": ["test/0"]}
    assert found["parts"]["all"]["accuracy"]["difference"] == pytest.approx(100 * (4 - 6) / 7)
    assert found["parts"]["all"]["recall"]["difference"] == pytest.approx((0 - 50 - 100) / 3)
    assert {part: row["recall"]["b"] for part, row in found["parts"].items() if part != "all"} == {
        "many": 75,
        "medium": 50,
        "few": 0,
    }
    assert [row["class"] for row in found["classes"]] == CLASSES
    assert "right -> wrong: 3 pictures: test/1, test/4, ..." in done.output


def test_a_model_is_compared_with_the_predictions_of_another(tmp_path, data):
    folder, facts = data
    a, b = table(tmp_path / "a", facts), build(tmp_path / "b.onnx", facts, prefer=0)
    done = run(a, b, "--data", folder, "--out", tmp_path / "out.json", "--split", "test")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out.json").read_text())["right_to_wrong"]["n"] == 3


def test_a_change_of_a_single_original_has_no_interval(tmp_path):
    a, b = table(tmp_path / "a", FACTS), table(tmp_path / "b", FACTS, wrong=[6])
    done = run(a, b, "--out", tmp_path / "out.json")
    assert done.exit_code == 0 and "none: too few originals" in done.output
    assert json.loads((tmp_path / "out.json").read_text())["parts"]["few"]["recall"]["low"] is None


def test_the_same_file_twice_is_said(tmp_path):
    a = table(tmp_path / "a", FACTS)
    done = run(a, a)
    assert done.exit_code == 0 and "A and B are the same file" in done.output
    assert "none: <= " in done.output


def test_a_split_with_one_class_has_a_result(tmp_path):
    sides = [table(tmp_path / name, FACTS, wrong) for name, wrong in (("a", []), ("b", [1]))]
    for side in sides:
        rows = pd.read_parquet(side / "predictions.parquet")
        rows[rows["label"] == 0].to_parquet(side / "predictions.parquet")
    done = run(*sides, "--out", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert done.exit_code == 0 and found["parts"]["all"]["recall"]["difference"] == -25
    assert [row["class"] for row in found["classes"]] == ["red"]


@pytest.mark.parametrize(("fall", "code"), [("20", 3), ("100", 0)])
def test_a_fall_of_the_few_alone_decides_the_exit_code(tmp_path, fall, code):
    a, b = table(tmp_path / "a", FACTS), table(tmp_path / "b", FACTS, wrong=[6])
    done = run(a, b, "--max-fall", fall, "--out", tmp_path / "out.json")
    assert done.exit_code == code
    assert ("of few fell by 100.00 points, more than 20" in done.output) == bool(code)
    assert bool(json.loads((tmp_path / "out.json").read_text())["falls"]) == bool(code)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"classes": [*CLASSES, "grey"]}, "A and B know other classes (3 and 4; more in one)"),
        ({"classes": ["red", "blue", "green"]}, "class 1 is 'green' and 'blue'"),
        ({"data": "two"}, "A is of data one, B of two"),
    ],
)
def test_models_of_other_classes_or_data_are_refused(tmp_path, other, message):
    a, b = table(tmp_path / "a", FACTS), table(tmp_path / "b", FACTS | other)
    done = run(a, b, "--out", tmp_path / "out.json")
    assert done.exit_code == 2 and message in done.output
    assert not (tmp_path / "out.json").exists()


def test_tables_of_other_pictures_are_refused(tmp_path):
    a, b = table(tmp_path / "a", FACTS), table(tmp_path / "b", FACTS)
    pd.read_parquet(b / "predictions.parquet").iloc[1:].to_parquet(b / "predictions.parquet")
    done = run(a, b)
    assert done.exit_code == 2 and "did not answer the same pictures of test: 7 and 6, 1 in one alone" in done.output


def test_a_model_of_another_image_size_is_refused(tmp_path, data):
    folder, facts = data
    a, b = build(tmp_path / "a.onnx", facts), build(tmp_path / "b.onnx", facts, size=8)
    done = run(a, b, "--data", folder)
    assert done.exit_code == 2 and "takes 8 x 8 pixels, the data have (4, 4)" in done.output


def test_a_model_of_other_data_than_the_folder_s_is_refused(tmp_path, data):
    folder, facts = data
    model = build(tmp_path / "a.onnx", facts | {"data": "old"})
    done = run(model, model, "--data", folder)
    assert done.exit_code == 2 and "data old, there" in done.output


def test_a_missing_split_and_a_missing_choice_name_the_valid_ones(tmp_path):
    a = table(tmp_path / "a", FACTS)
    done = run(a, a, "--split", "test_gbl")
    assert done.exit_code == 2 and "no split 'test_gbl': choose one by --split; valid: test" in done.output
    rows = pd.read_parquet(a / "predictions.parquet")
    both = pd.concat([rows, rows.assign(split="test_b", id="b" + rows["id"])])
    both.attrs = rows.attrs
    both.to_parquet(a / "predictions.parquet")
    done = run(a, a)
    assert done.exit_code == 2 and "several test splits: choose one by --split; valid: test, test_b" in done.output


def test_a_folder_of_cells_names_them(tmp_path):
    (tmp_path / "run").mkdir()
    table(tmp_path / "run/s0", FACTS)
    done = run(tmp_path / "run", tmp_path / "run/s0")
    assert done.exit_code == 2 and "it holds the cells" in done.output and "run/s0: name one" in done.output


@pytest.mark.parametrize("content", [b"", b"no parquet"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    done = run(tmp_path / "a.parquet", tmp_path / "a.parquet")
    assert done.exit_code == 2 and "is no parquet file" in done.output


def test_a_table_without_a_model_is_refused(tmp_path):
    a = table(tmp_path / "a", FACTS)
    rows = pd.read_parquet(a / "predictions.parquet")
    rows.attrs = {}
    rows.to_parquet(a / "predictions.parquet")
    done = run(a, a)
    assert done.exit_code == 2 and "it names no model" in done.output


def test_the_models_of_this_file_are_valid(tmp_path, data):
    onnx.checker.check_model(str(build(tmp_path / "a.onnx", data[1])))
