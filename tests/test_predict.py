"""The command that predicts: a tiny model whose answers are known, good and bad images, and no torch."""

import csv
import io
import json
import subprocess
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
from PIL import Image

from ltpipe.config.spec import Refused
from ltpipe.predict import command as main
from ltpipe.predict import read_image
from ltpipe.recipe.cell import exported_by, identity, predicted_by
from ltpipe.serving.session import BATCH, open_session, predict, read_facts, run_logits, softmax
from ltpipe.storage.manifest import class_names, data_version

SIZE = 4
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def build(facts, size=SIZE):
    """A model whose logits are the mean of red, green and blue: the class is the brightest channel."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", size, size, 3])
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in ("logits", "probabilities")]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["logits"], keepdims=0),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, initializer=[axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {f"ltpipe.{key}": json.dumps(value) for key, value in facts.items()})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def facts(**more):
    return {"classes": list(COLOURS), "image_size": SIZE, "cell": "a.b.c", "data": "x", "seed": 0} | more


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(build(facts()))
    return path


@pytest.fixture
def pictures(tmp_path):
    """A folder with one picture a colour, in folders of folders, and a file that is no picture."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    paint("red").save(folder / "a.png")
    paint("green").save(folder / "deep/b.bmp")
    paint("blue").save(folder / "deep/c.PNG")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def paint(colour, size=(SIZE, SIZE)):
    return Image.new("RGB", size, COLOURS[colour])


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments), "--provider", "cpu"])


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


# good input


def test_a_folder_is_searched_for_images_and_each_is_a_line(model, pictures):
    done = run(model, pictures)
    assert done.exit_code == 0, done.output
    assert [(row["path"], row["label"], row["class"]) for row in rows(done.stdout)] == [
        (str(pictures / "a.png"), "0", "red"),
        (str(pictures / "deep/b.bmp"), "1", "green"),
        (str(pictures / "deep/c.PNG"), "2", "blue"),
    ]
    assert all(row["probability"] == "1.000000" for row in rows(done.stdout))


def test_files_come_in_the_order_in_which_they_are_named(model, pictures):
    done = run(model, pictures / "deep/c.PNG", pictures / "a.png")
    assert [row["class"] for row in rows(done.stdout)] == ["blue", "red"]


def test_a_file_and_a_folder_can_be_mixed(model, pictures):
    done = run(model, pictures / "deep/c.PNG", pictures)
    assert [row["class"] for row in rows(done.stdout)] == ["blue", "red", "green", "blue"]


def test_the_probability_is_that_of_the_predicted_class(model, tmp_path):
    Image.new("RGB", (SIZE, SIZE), (101, 100, 100)).save(tmp_path / "x.png")
    (row,) = rows(run(model, tmp_path / "x.png").stdout)
    assert float(row["probability"]) == pytest.approx(np.e / (np.e + 2), abs=1e-5)


def test_more_images_than_a_batch_are_all_predicted(model, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    wanted = [list(COLOURS)[i % 3] for i in range(BATCH + 5)]
    for number, colour in enumerate(wanted):
        paint(colour).save(folder / f"{number:04d}.bmp")
    assert [row["class"] for row in rows(run(model, folder).stdout)] == wanted


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "I;16", "CMYK"])
def test_images_that_are_not_rgb_are_converted(model, tmp_path, mode):
    picture = Image.new(mode, (SIZE, SIZE)) if mode == "I;16" else paint("green").convert(mode)
    picture.save(tmp_path / "x.tif")
    assert run(model, tmp_path / "x.tif").exit_code == 0


def test_a_class_name_with_a_comma_is_one_column(tmp_path, pictures):
    path = tmp_path / "model.onnx"
    path.write_bytes(build(facts(classes=['red, or "reddish"', "green", "blue"])))
    assert rows(run(path, pictures / "a.png").stdout)[0]["class"] == 'red, or "reddish"'


def test_resize_brings_an_image_to_the_size_of_the_model(model, tmp_path):
    paint("green", (9, 5)).save(tmp_path / "x.png")
    done = run(model, tmp_path / "x.png", "--resize")
    assert [row["class"] for row in rows(done.stdout)] == ["green"]


def test_resize_is_bilinear_and_leaves_an_image_of_the_right_size_as_it_is(tmp_path):
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 256, (8, 8, 3), dtype=np.uint8))
    picture.save(tmp_path / "x.png")
    wanted = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    assert (read_image(tmp_path / "x.png", SIZE, resize=True) == wanted).all()
    assert (read_image(tmp_path / "x.png", 8, resize=True) == np.asarray(picture)).all()


def test_resize_keeps_the_centre_square(model, tmp_path):
    pixels = np.zeros((8, 40, 3), np.uint8)
    pixels[:] = COLOURS["red"]
    pixels[:, 16:24] = COLOURS["blue"]
    Image.fromarray(pixels).save(tmp_path / "x.png")
    done = run(model, tmp_path / "x.png", "--resize")
    assert [row["class"] for row in rows(done.stdout)] == ["blue"]


def test_out_is_the_same_text_as_a_file_and_nothing_on_the_terminal(model, pictures, tmp_path):
    out = tmp_path / "results/predictions.csv"
    done = run(model, pictures, "--out", out)
    assert (done.exit_code, done.output) == (0, "")
    assert out.read_text() == run(model, pictures).stdout
    assert list(out.parent.iterdir()) == [out]


def test_an_old_result_is_replaced_by_a_new_file(model, pictures, tmp_path):
    (tmp_path / "out.csv").write_text("old")
    (tmp_path / "link").hardlink_to(tmp_path / "out.csv")
    assert run(model, pictures, "--out", tmp_path / "out.csv").exit_code == 0
    assert (tmp_path / "link").read_text() == "old"
    assert len(rows((tmp_path / "out.csv").read_text())) == 3


# bad input: one message, exit code 2, nothing written


def refused(*arguments):
    done = run(*arguments)
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stdout == ""
    return done.stderr


def test_an_image_of_another_size_is_refused_with_both_sizes_and_advice(model, tmp_path):
    paint("green", (9, 5)).save(tmp_path / "x.png")
    assert f"{tmp_path / 'x.png'} is 9 x 5; the model takes 4 x 4 (or --resize)" in refused(model, tmp_path / "x.png")


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_a_file_that_is_no_image_is_refused_by_name(model, tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    assert f"cannot read {tmp_path / 'x.png'} as an image" in refused(model, tmp_path / "x.png")


def saved(kind):
    buffer = io.BytesIO()
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def cut_off():
    content = saved("JPEG")
    return content[: len(content) // 2]


def bad_pixels():
    """A PNG whose pixels do not decompress, because one byte in their middle is another."""
    content = bytearray(saved("PNG"))
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


def width_that_is_no_integer():
    """A TIFF that states its width (tag 256) as a fraction (type 5)."""
    content = saved("TIFF")
    place = content.index(b"\x00\x01\x04\x00\x01\x00\x00\x00")
    return content[: place + 2] + b"\x05" + content[place + 3 :]


def bomb():
    """A header that states 20,000 x 20,000 pixels."""
    content = saved("BMP")
    return content[:18] + (20_000).to_bytes(4, "little") * 2 + content[26:]


def junk_chunk():
    """A PNG whose pixels end half way, in something that is no chunk."""
    content = saved("PNG")
    half = b"IDAT" + content[41 : len(content) // 2]
    chunk = (len(half) - 4).to_bytes(4, "big") + half + zlib.crc32(half).to_bytes(4, "big")
    return content[:33] + chunk + b"\x00\x00\x00\x10\xdd\x57\xaf\x05" + bytes(40)


@pytest.mark.parametrize("broken", [cut_off, bad_pixels, bomb, junk_chunk, width_that_is_no_integer])
def test_a_broken_image_is_refused_by_name(model, tmp_path, broken):
    (tmp_path / "x.png").write_bytes(broken())
    message = refused(model, tmp_path / "x.png", "--resize")
    assert "cannot " in message and str(tmp_path / "x.png") in message


def test_a_folder_without_images_is_refused_with_the_endings_looked_for(model, tmp_path):
    (tmp_path / "empty").mkdir()
    message = refused(model, tmp_path / "empty")
    assert f"no image in {tmp_path / 'empty'}" in message
    assert ".png .jpg" in message


def test_a_path_that_is_not_there_is_refused(model, tmp_path):
    assert "does not exist" in refused(model, tmp_path / "absent.png")


def test_no_image_at_all_is_refused(model):
    assert "Missing argument 'IMAGES...'" in refused(model)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a\x12"])
def test_a_file_that_is_no_model_is_refused(tmp_path, pictures, content):
    (tmp_path / "x.onnx").write_bytes(content)
    assert "not a model that onnxruntime can open" in refused(tmp_path / "x.onnx", pictures)


def test_a_model_that_ltpipe_did_not_export_is_refused(tmp_path, pictures):
    (tmp_path / "x.onnx").write_bytes(build({}))
    assert "the model has no ltpipe metadata: it was not exported by ltpipe" in refused(tmp_path / "x.onnx", pictures)


def test_an_old_result_is_kept_if_an_image_is_refused(model, pictures, tmp_path):
    out = tmp_path / "predictions.csv"
    out.write_text("old")
    (pictures / "z.png").write_bytes(b"broken")
    refused(model, pictures, "--out", out)
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if "predictions" in p.name] == ["predictions.csv"]


def test_a_result_that_cannot_be_written_is_refused(model, pictures, tmp_path):
    (tmp_path / "folder").mkdir()
    assert f"cannot write {tmp_path / 'folder'}" in refused(model, pictures, "--out", tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_silent_fall_back_to_the_cpu_is_refused(monkeypatch):
    fallen = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: fallen)
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None, raising=False)
    with pytest.raises(Refused, match=r"could not start CUDAExecutionProvider .* choose --provider cpu"):
        open_session(b"", "cuda")


# the stage


@pytest.fixture
def recipe(spec):
    """How the cell digits_glt.ce.s0 is trained."""
    blocks = {"run": spec.runs["ce"].train, "schedule": spec.schedule, "model": spec.model}
    return blocks | {"seed": 0, "cell": "digits_glt.ce.s0"}


@pytest.fixture
def known(recipe, spec, manifest, images):
    """What a model of this cell says of itself."""
    data = {"data": data_version(manifest, images), "classes": class_names(manifest)}
    return identity(**recipe) | exported_by(spec.parity) | data | {"image_size": 16}


def test_the_stage_predicts_val_and_test_in_the_order_of_the_manifest(spec, manifest, images, recipe, known):
    table = predict(build(known, size=16), manifest, images, parity=spec.parity, **recipe)
    rows = manifest[manifest["role"] != "train"]
    assert table["id"].tolist() == rows["id"].tolist()
    for column in ("source", "split", "label", "group", "attribute"):
        assert table[column].tolist() == rows[column].tolist()
    means = images[rows["row"].to_numpy()].astype(np.float64).mean(axis=(1, 2))
    assert table["predicted"].tolist() == means.argmax(axis=1).tolist()
    assert table["confidence"].to_numpy() == pytest.approx(softmax(means).max(axis=1), rel=1e-3)
    provider = table.attrs["facts"].pop("provider")
    assert provider in ("CPUExecutionProvider", "CUDAExecutionProvider")
    assert table.attrs["facts"] == known | predicted_by()


@pytest.mark.parametrize("fact", ["cell", "seed", "code", "recipe", "data", "classes", "exported"])
def test_the_stage_refuses_a_model_of_another_state(spec, manifest, images, recipe, known, fact):
    other = known | {fact: ["other"] if fact == "classes" else "other"}
    with pytest.raises(Refused, match=r"the model of digits_glt\.ce\.s0 is of another state: ") as refused:
        predict(build(other, size=16), manifest, images, parity=spec.parity, **recipe)
    again = "--tags=measure" if fact == "exported" else "--namespaces=digits_glt.ce.s0"
    assert f"kedro run --pipeline=digits_glt {again}, or dvc repro" in refused.value.message
    assert f"{fact} is {other[fact]}, not {known[fact]}" in refused.value.message


def test_the_facts_of_a_model_are_what_was_written_into_it():
    assert read_facts(open_session(build(facts(seed=7)), "cpu")) == facts(seed=7)


def test_logits_do_not_depend_on_the_batch():
    session = open_session(build(facts()), "cpu")
    images = np.random.RandomState(0).randint(0, 256, (BATCH + 3, SIZE, SIZE, 3), dtype=np.uint8)
    each = np.concatenate([run_logits(session, images[i : i + 1]) for i in range(len(images))])
    assert (run_logits(session, images) == each).all()


@given(arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32)))
def test_softmax_is_finite_sums_to_one_and_keeps_the_order(logits):
    probabilities = softmax(logits)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(3))
    assert (probabilities[np.arange(3), logits.argmax(axis=1)] == probabilities.max(axis=1)).all()


def test_predicting_imports_neither_torch_nor_kedro_nor_pandas(model, pictures):
    code = (
        "import sys\n"
        "from ltpipe.predict import command as main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'torch', 'kedro', 'pandas', 'great_expectations', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", code, str(model), str(pictures), "--provider", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(rows(done.stdout)) == 3
