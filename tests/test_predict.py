"""The command that predicts: a tiny model whose answers are known, good and bad images, and no torch."""

import csv
import inspect
import io
import json
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import termios
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper
from PIL import Image

from ltpipe.config.spec import Refused
from ltpipe.data.originals import pack_exactly
from ltpipe.data.pack import pack
from ltpipe.data.source import Source
from ltpipe.predict import command as main
from ltpipe.recipe.cell import exported_by, identity, predicted_by
from ltpipe.serving import output
from ltpipe.serving.files import Found, find_images, read_image
from ltpipe.serving.preprocessing import describe
from ltpipe.serving.rows import Columns
from ltpipe.serving.session import BATCH, open_session, predict, read_facts, run_logits, softmax
from ltpipe.storage.identity import digest_bytes
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


def steps(size=SIZE, pictures=False):
    """What export writes of preprocessing: of packed squares, or where training reads whole pictures."""
    manifest = pd.DataFrame()
    manifest.attrs = {"pictures": ["files", None]} if pictures else {}
    return describe(manifest, size, size)


def facts(**more):
    known = {"classes": list(COLOURS), "image_size": SIZE, "cell": "a.b.c", "data": "x", "seed": 0}
    return known | {"preprocessing": steps().model_dump()} | more


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


# Until issue 11 an image of another size was refused without --resize, so that a user had to know what training did.
def test_an_image_of_another_size_is_resized_without_being_asked(model, tmp_path):
    paint("green", (9, 5)).save(tmp_path / "x.png")
    done = run(model, tmp_path / "x.png")
    assert (done.exit_code, [row["class"] for row in rows(done.stdout)]) == (0, ["green"])


def test_resize_is_bilinear_and_leaves_an_image_of_the_right_size_as_it_is(tmp_path):
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 256, (8, 8, 3), dtype=np.uint8))
    picture.save(tmp_path / "x.png")
    wanted = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    assert (read_image(Found(tmp_path / "x.png"), steps(), as_is=False) == wanted).all()
    assert (read_image(Found(tmp_path / "x.png"), steps(8), as_is=True) == np.asarray(picture)).all()


def test_resize_keeps_the_centre_square(model, tmp_path):
    pixels = np.zeros((8, 40, 3), np.uint8)
    pixels[:] = COLOURS["red"]
    pixels[:, 16:24] = COLOURS["blue"]
    Image.fromarray(pixels).save(tmp_path / "x.png")
    done = run(model, tmp_path / "x.png")
    assert [row["class"] for row in rows(done.stdout)] == ["blue"]


@pytest.mark.parametrize("pictures", ["squares", "files"])
def test_a_large_jpeg_gives_the_logits_of_the_image_that_the_data_stage_packs(tmp_path, pictures):
    """Both ways of packing; they differ for this picture, so a model must say which was its own."""
    noise = np.random.RandomState(0).randint(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((900, 600), Image.Resampling.NEAREST).save(tmp_path / "x.jpg", quality=70)
    source = Source(name="image_folder", size=SIZE, pictures=pictures)
    manifest = pd.DataFrame({"row": [0], "file": ["x.jpg"]})
    packed = (pack if pictures == "squares" else pack_exactly)(manifest, source, tmp_path)
    payload = build(facts(preprocessing=steps(pictures=pictures == "files").model_dump()))
    (tmp_path / "model.onnx").write_bytes(payload)
    wanted = softmax(run_logits(open_session(payload, "cpu"), packed))[0]
    (row,) = rows(run(tmp_path / "model.onnx", tmp_path / "x.jpg", "--probabilities").stdout)
    assert [row[f"p_{name}"] for name in COLOURS] == [f"{value:.6f}" for value in wanted]
    read = [read_image(Found(tmp_path / "x.jpg"), steps(pictures=whole), as_is=False) for whole in (False, True)]
    assert (read[pictures == "files"] == packed[0]).all() and (read[pictures != "files"] != packed[0]).any()


def test_a_model_that_does_not_state_its_preprocessing_is_told_of_in_one_line(tmp_path, pictures):
    old = facts()
    del old["preprocessing"]
    (tmp_path / "old.onnx").write_bytes(build(old))
    paint("green", (9, 5)).save(pictures / "z.png")
    done = run(tmp_path / "old.onnx", pictures)
    assert done.exit_code == 0 and len(rows(done.stdout)) == 4
    (line,) = done.stderr.splitlines()
    assert line.startswith("the model does not state how its images were prepared") and "becomes 4" in line


def test_a_model_with_preprocessing_of_another_kind_is_refused(tmp_path, pictures):
    strange = steps().model_dump() | {"interpolation": "bicubic"}
    (tmp_path / "new.onnx").write_bytes(build(facts(preprocessing=strange)))
    message = refused(tmp_path / "new.onnx", pictures)
    assert "the model's preprocessing is not known to this version" in message and "interpolation" in message


def test_as_is_skips_images_of_another_size(model, pictures):
    paint("green", (9, 5)).save(pictures / "z.png")
    done = run(model, pictures, "--as-is")
    assert done.exit_code == 7 and len(rows(done.stdout)) == 3
    assert f"skipped {pictures / 'z.png'}: 9 x 5 pixels, and --as-is takes 4 x 4" in done.stderr


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


# A bad file used to end the whole run with exit code 2: a folder of 100,000 with one broken file gave nothing.
BROKEN = {
    b"": "the file is empty",
    b"not a picture": "not an image that Pillow knows",
    b"\x89PNG\r\n\x1a\n": "",
    b"\xff\xd8\xff\xe0": "",
    cut_off(): "truncated",
    bad_pixels(): "",
    bomb(): "exceeds limit",
    junk_chunk(): "",
    width_that_is_no_integer(): "",
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.items(), ids=range(len(BROKEN)))
def test_a_broken_image_is_named_with_its_reason_and_skipped(model, pictures, content, reason):
    (pictures / "b.png").write_bytes(content)
    done = run(model, pictures)
    assert done.exit_code == 7, (done.output, done.exception)
    assert [row["class"] for row in rows(done.stdout)] == ["red", "green", "blue"]
    first, last = done.stderr.splitlines()
    assert first.startswith(f"skipped {pictures / 'b.png'}: ") and reason in first
    assert last == "1 of 4 files were skipped"


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


STRANGE = {
    "a folder, not a file": Path.mkdir,
    "a pipe, not a file": os.mkfifo,
    "a socket, not a file": make_socket,
    "a link that leads nowhere": lambda path: path.symlink_to("absent"),
    "Too many levels of symbolic links": lambda path: path.symlink_to(path.name),
    "a device, not a file": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.timeout(60)  # a FIFO that is opened waits for ever
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(("reason", "make"), STRANGE.items(), ids=STRANGE)
def test_what_is_no_file_is_skipped(model, tmp_path, monkeypatch, reason, make, named):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    Path("in").mkdir()
    paint("red").save("in/a.png")
    make(Path("in/b.jpg"))
    if named and reason.startswith("a folder"):
        pytest.skip("a folder that is named is searched")
    done = run(model, *(["in/a.png", "in/b.jpg"] if named else ["in"]))
    assert done.exit_code == 7, (done.output, done.exception)
    assert [row["path"] for row in rows(done.stdout)] == ["in/a.png"]
    assert done.stderr.splitlines()[0] == f"skipped in/b.jpg: {reason}"


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_read_is_skipped(model, pictures, monkeypatch, what):
    """The tests may run as root, who may read everything: the refusal is made."""
    module, name = (Image, "open") if what == "file" else (os, "listdir")
    place, real = pictures / "a.png" if what == "file" else pictures / "deep", getattr(module, name)

    def refuse(path, *more, **options):
        if Path(path) == place:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *more, **options)

    monkeypatch.setattr(module, name, refuse)
    done = run(model, pictures)
    assert done.exit_code == 7, (done.output, done.exception)
    assert f"skipped {place}: Permission denied" in done.stderr
    assert len(rows(done.stdout)) == (2 if what == "file" else 1)


def test_a_linked_folder_is_searched_but_a_link_to_a_folder_above_is_skipped(model, pictures, tmp_path):
    (tmp_path / "other").mkdir()
    paint("red").save(tmp_path / "other/x.png")
    (pictures / "link").symlink_to(tmp_path / "other")
    (pictures / "deep/loop").symlink_to(pictures)
    done = run(model, pictures)
    assert done.exit_code == 7
    names = ["a.png", "deep/b.bmp", "deep/c.PNG", "link/x.png"]
    assert [row["path"] for row in rows(done.stdout)] == [str(pictures / name) for name in names]
    assert f"skipped {pictures / 'deep/loop'}: a link to a folder that it lies in" in done.stderr


def test_folders_may_be_deeper_than_pythons_stack(tmp_path):
    """A lower limit stands for more folders: pytest itself could not remove a thousand."""
    folder = tmp_path.joinpath(*["d"] * 300)
    folder.mkdir(parents=True)
    paint("red").save(folder / "x.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        found = list(find_images([tmp_path]))
    finally:
        sys.setrecursionlimit(limit)
    assert found == [Found(folder / "x.png")]


def test_strict_ends_at_the_first_bad_file_and_writes_nothing(model, pictures, tmp_path):
    (pictures / "b.png").write_bytes(b"")
    (pictures / "c.png").write_bytes(b"")
    result = tmp_path / "out/x.csv"
    for more in ([], ["--out", result]):
        message = refused(model, pictures, "--strict", *more)
        assert message == f"Error: {pictures / 'b.png'}: the file is empty; with --strict nothing is written\n"
    assert list((tmp_path / "out").iterdir()) == []
    assert run(model, pictures / "a.png", "--strict").stdout == run(model, pictures / "a.png").stdout


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_if_no_file_can_be_read_there_is_no_result(model, tmp_path, ending):
    (tmp_path / "x.png").write_bytes(b"")
    message = refused(model, tmp_path / "x.png", "--out", tmp_path / f"out.{ending}")
    assert "of 1 files none could be read as an image; nothing is written" in message
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
    assert "none could be read" in refused(model, tmp_path / "x.png")


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
    refused(model, pictures, "--out", out, "--strict")
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if "predictions" in p.name] == ["predictions.csv"]


def test_a_result_that_cannot_be_written_is_refused(model, pictures, tmp_path):
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    assert f"cannot write {folder}: it is a folder" in refused(model, pictures, "--out", folder)
    assert f"cannot write {model / 'x.csv'}: " in refused(model, pictures, "--out", model / "x.csv")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["out", "out.txt", "out.json", "out.csv.gz"])
def test_another_ending_is_refused_with_the_valid_ones(model, pictures, tmp_path, name):
    assert "valid endings: .csv, .jsonl, .parquet" in refused(model, pictures, "--out", tmp_path / name)
    assert not (tmp_path / name).exists()


# formats and columns


def table(path):
    """The columns of a result, whatever its format; an empty value is None."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    return [{k: None if pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]


@pytest.mark.parametrize("more", [[], ["--top-k", 3], ["--probabilities"], ["--threshold", 0.7, "--top-k", 2]])
def test_all_formats_hold_the_same_table(model, pictures, tmp_path, more):
    Image.new("RGB", (SIZE, SIZE), (101, 100, 100)).save(pictures / "dim.png")
    endings = ("csv", "jsonl", "parquet")
    for ending in endings:
        done = run(model, pictures, "--out", tmp_path / f"out.{ending}", *more)
        assert (done.exit_code, done.output) == (0, "")
    first, second, third = (table(tmp_path / f"out.{ending}") for ending in endings)
    assert first == second == third and len(first) == 4
    assert sorted(path.name for path in tmp_path.glob("out*")) == [f"out.{ending}" for ending in endings]


def test_top_k_names_the_next_classes_in_order(model, tmp_path):
    Image.new("RGB", (SIZE, SIZE), (100, 102, 101)).save(tmp_path / "x.png")
    (row,) = rows(run(model, tmp_path / "x.png", "--top-k", 3).stdout)
    assert [row[k] for k in ("class", "class_2", "class_3")] == ["green", "blue", "red"]
    assert [row[k] for k in ("label", "label_2", "label_3")] == ["1", "2", "0"]
    values = [float(row[k]) for k in ("probability", "probability_2", "probability_3")]
    assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_top_k_beyond_the_classes_is_refused(model, pictures, k):
    assert "top-k" in refused(model, pictures, "--top-k", k)


def test_below_the_threshold_label_and_class_are_empty_and_the_probability_stays(model, tmp_path):
    Image.new("RGB", (SIZE, SIZE), (101, 100, 100)).save(tmp_path / "dim.png")
    paint("red").save(tmp_path / "sure.png")
    low, high = rows(run(model, tmp_path / "dim.png", tmp_path / "sure.png", "--threshold", 0.9, "--top-k", 2).stdout)
    assert (low["label"], low["class"], low["class_2"]) == ("", "", "green")
    assert float(low["probability"]) == pytest.approx(np.e / (np.e + 2), abs=1e-5)
    assert (high["label"], high["class"]) == ("0", "red")


def test_the_threshold_compares_the_number_that_is_written():
    columns = Columns(["a", "b"], threshold=0.6)
    assert columns.row(Path("x"), np.array([0.5999996, 0.4000004])) == ["x", 0, "a", 0.6]
    assert columns.row(Path("x"), np.array([0.599999, 0.400001])) == ["x", None, None, 0.599999]


def test_two_classes_of_one_name_have_two_columns():
    names = Columns(["a", "a", "0_a"], probabilities=True).names()
    assert names[-3:] == ["p_0_a", "p_1_a", "p_2_0_a"]


@pytest.mark.parametrize("wrong", [["--threshold", 1.5], ["--threads", 0], ["--resume"], ["--provider", "tpu"]])
def test_a_wrong_option_is_refused(model, pictures, wrong):
    done = CliRunner().invoke(main, [str(model), str(pictures), *map(str, wrong)])
    assert done.exit_code == 2 and done.stdout == "" and wrong[0] in done.stderr


def test_threads_are_those_of_onnxruntime_and_of_decoding(model, pictures, monkeypatch):
    import onnxruntime

    seen, real = [], onnxruntime.InferenceSession

    def spy(payload, options, **more):
        seen.append(options.intra_op_num_threads)
        return real(payload, options, **more)

    monkeypatch.setattr("onnxruntime.InferenceSession", spy)
    pool = "ltpipe.predict.ThreadPoolExecutor"
    monkeypatch.setattr(
        pool,
        lambda threads, real=main.callback.__globals__["ThreadPoolExecutor"]: seen.append(threads) or real(threads),
    )
    assert run(model, pictures, "--threads", 3).exit_code == 0
    assert seen == [3, 3]


# names, outputs and terminals that are not as usual: in a process of its own


SMALL = 8  # images of a batch, where a test needs several
SMALL_BATCHES = f"import sys, ltpipe.predict as p\np.BATCH = {SMALL}\n"
START = SMALL_BATCHES + "p.command(sys.argv[1:], prog_name='ltpipe predict')"


@pytest.fixture
def small(monkeypatch):
    """Batches of this process are small."""
    monkeypatch.setattr("ltpipe.predict.BATCH", SMALL)


def start(*arguments, **options):
    command = [sys.executable, "-c", START, *arguments, "--provider", "cpu"]
    return subprocess.run(command, **{"capture_output": True, "timeout": 120} | options)


ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
NAMES = {
    b"caf\xe9.png": r"caf\xe9.png",
    "über ☃.png".encode(): "über ☃.png",
    b"two\nlines.png": "two\nlines.png",
    b"return\rhere.png": "return\rhere.png",
    b'comma, "quote".png': 'comma, "quote".png',
}


@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_name_of_any_bytes_is_written_and_read_back(model, tmp_path, ascii_only):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in NAMES:
        paint("red").save(folder / os.fsdecode(name), "PNG")
    (tmp_path / "other.onnx").write_bytes(build(facts(classes=["röt", "green", "blue"])))
    done = start(tmp_path / "other.onnx", folder, env=os.environ | (ASCII if ascii_only else {}))
    assert (done.returncode, done.stderr) == (0, b"")
    read = list(csv.DictReader(io.StringIO(done.stdout.decode(), newline="")))
    assert {row["path"].removeprefix(f"{folder}/") for row in read} == set(NAMES.values())
    assert {row["class"] for row in read} == {"röt"}
    for ending in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"out.{ending}"
        assert run(tmp_path / "other.onnx", folder, "--out", out).exit_code == 0
    assert (tmp_path / "out.csv").read_bytes() == done.stdout
    for out in (tmp_path / "out.jsonl", tmp_path / "out.parquet"):
        assert [row["path"] for row in table(out)] == [row["path"] for row in read]


def test_messages_about_strange_names_are_one_line_on_an_ascii_terminal(model, tmp_path):
    for name in (b"caf\xe9\n\x1b[31m.png", "ü.png".encode()):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    done = start(model, tmp_path, env=os.environ | ASCII)
    assert done.returncode == 2
    assert (
        done.stderr.decode().splitlines()
        == [  # click writes UTF-8 where the terminal says that it knows ASCII alone
            rf"skipped {tmp_path}/caf\xe9\n\x1b[31m.png: the file is empty",
            f"skipped {tmp_path}/ü.png: the file is empty",
            "Error: of 2 files none could be read as an image; nothing is written",
        ]
    )


def many(folder, count):
    folder.mkdir()
    for number in range(count):
        paint(list(COLOURS)[number % 3]).save(folder / f"{number:04d}.bmp")
    return folder


def test_a_closed_output_ends_quietly(model, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = start(model, many(tmp_path / "in", 3), stdout=writer, stderr=subprocess.PIPE, capture_output=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
    done = start(model, tmp_path / "in", stderr=subprocess.PIPE, capture_output=False, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (2, b"Error: standard output is closed: name a file by --out\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("more", [[], ["--strict"]])
def test_a_full_output_is_one_line(model, pictures, more):
    with Path("/dev/full").open("wb") as full:
        done = start(model, pictures, *more, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 2
    assert done.stderr == b"Error: cannot write to standard output: No space left on device\n"


def limit_files(size):
    """A disk on which no file may be larger."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_full_disk_is_one_line_and_what_is_done_can_be_continued(model, small, tmp_path, ending):
    folder, out, whole = many(tmp_path / "in", 2 * SMALL + 3), tmp_path / f"out.{ending}", tmp_path / f"w.{ending}"
    assert run(model, folder, "--out", whole).exit_code == 0
    one_batch = tmp_path / f"batch.{'csv' if ending == 'csv' else 'jsonl'}"
    files = sorted(folder.iterdir())[:SMALL]
    assert run(model, *files, "--out", one_batch).exit_code == 0
    done = start(model, folder, "--out", out, preexec_fn=limit_files(one_batch.stat().st_size + 100))
    assert done.returncode == 2 and not out.exists()
    kept = f"{SMALL} files are kept in {out}.part: the same command with --resume goes on"
    assert done.stderr.decode() == f"Error: cannot write {out}.part: File too large; {kept}\n"
    assert run(model, folder, "--out", out, "--resume").exit_code == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.part*"))
    nothing = start(model, folder, "--out", tmp_path / f"z.{ending}", preexec_fn=limit_files(100))
    assert nothing.returncode == 2 and b"File too large; nothing is kept\n" in nothing.stderr
    assert not list(tmp_path.glob("z.*"))


def test_a_bar_is_shown_on_a_terminal_alone(model, pictures, tmp_path):
    (pictures / "b.png").write_bytes(b"")
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    out = tmp_path / "out.csv"
    assert start(model, pictures, "--out", out, stderr=terminal, capture_output=False).returncode == 7
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(screen, 4096):
            shown += part
    except OSError:  # the end of a terminal, on Linux
        pass
    os.close(screen)
    assert b"4/4" in shown and b"skipped " in shown
    assert b"4/4" not in start(model, pictures, "--out", out).stderr


# interruption and --resume


@pytest.fixture
def slow(model, small, monkeypatch):
    """slow(stop): `run` that is interrupted before batch number `stop`."""
    real = output.Partial.write

    def interrupted(*arguments, stop):
        calls = []

        def write(self, content, progress):
            calls.append(1)
            if len(calls) > stop:
                raise KeyboardInterrupt
            real(self, content, progress)

        with monkeypatch.context() as patch:
            patch.setattr(output.Partial, "write", write)
            return run(model, *arguments)

    return interrupted


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("more", [[], ["--probabilities", "--top-k", 2, "--threshold", 0.5]])
def test_a_resumed_result_is_that_of_a_run_without_a_break(model, slow, tmp_path, ending, more):
    folder, out, whole = many(tmp_path / "in", 3 * SMALL + 3), tmp_path / f"out.{ending}", tmp_path / f"w.{ending}"
    (folder / "0001.bmp").write_bytes(b"broken")
    assert run(model, folder, "--out", whole, *more).exit_code == 7
    for resume, total in (([], 1), (["--resume"], 2)):
        done = slow(folder, "--out", out, *more, *resume, stop=1)
        assert (done.exit_code, out.exists()) == (130, False)
        kept = f"{total * SMALL} files are kept in {out}.part: the same command with --resume goes on"
        assert done.stderr.splitlines()[-1] == f"interrupted after {total * SMALL} files; {kept}"
    with (tmp_path / f"out.{ending}.part").open("ab") as file:
        file.write(b"half a li")  # of a batch whose end was not written
    done = run(model, folder, "--out", out, "--resume", *more)
    assert done.exit_code == 7 and done.stderr == f"1 of {3 * SMALL + 3} files were skipped\n"
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.part*"))


def test_without_resume_a_run_begins_again(model, slow, pictures, tmp_path):
    folder, out = many(tmp_path / "in", SMALL + 3), tmp_path / "out.csv"
    slow(folder, "--out", out, stop=1)
    assert run(model, pictures, "--out", out).exit_code == 0
    assert len(rows(out.read_text())) == 3 and not list(tmp_path.glob("*.part*"))


def test_resume_with_nothing_there_begins(model, pictures, tmp_path):
    assert run(model, pictures, "--out", tmp_path / "out.csv", "--resume").exit_code == 0
    assert len(rows((tmp_path / "out.csv").read_text())) == 3


CHANGES = {
    "an option": (lambda folder: None, ["--top-k", 2], "top_k is 1, not 2"),
    "more images": (lambda folder: None, ["{model}"], "images is "),
    "a new file": (lambda folder: paint("red").save(folder / "0000.png"), [], "have changed since"),
    "an edited file": (lambda folder: paint("red", (9, 9)).save(folder / "0000.bmp"), [], "have changed since"),
    "a file that is gone": (lambda folder: (folder / "0000.bmp").unlink(), [], "have changed since"),
    "a note cut off": (lambda folder: (folder.parent / "out.csv.part.json").write_text("{"), [], "is not readable"),
    "lost rows": (lambda folder: os.truncate(folder.parent / "out.csv.part", 99), [], "is shorter than"),
}


@pytest.mark.parametrize(("change", "more", "words"), CHANGES.values(), ids=CHANGES)
def test_resume_refuses_what_was_begun_otherwise(model, slow, tmp_path, change, more, words):
    folder = many(tmp_path / "in", SMALL + 3)
    slow(folder, "--out", tmp_path / "out.csv", stop=1)
    change(folder)
    message = refused(
        model, folder, "--out", tmp_path / "out.csv", "--resume", *(str(m).format(model=model) for m in more)
    )
    assert words in message and "begin again without --resume" in message
    assert not (tmp_path / "out.csv").exists() and (tmp_path / "out.csv.part").exists()


def test_an_interruption_before_the_first_batch_leaves_nothing(slow, pictures, tmp_path):
    done = slow(pictures, "--out", tmp_path / "out.csv", stop=0)
    assert (done.exit_code, done.stderr) == (130, "interrupted after 0 files; nothing is kept\n")
    assert not list(tmp_path.glob("out*"))


def test_two_processes_do_not_write_one_result(model, pictures, tmp_path):
    first = output.Partial(tmp_path / "out.csv", Columns(["a"]), {}, resume=False)
    assert f"another process writes {tmp_path / 'out.csv.part'}" in refused(
        model, pictures, "--out", tmp_path / "out.csv"
    )
    first.discard()


@pytest.mark.parametrize("signals", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_killed_is_continued(model, small, tmp_path, signals):
    folder, out, whole = many(tmp_path / "in", 3 * SMALL), tmp_path / "out.csv", tmp_path / "whole.csv"
    # the second batch waits for ever; a shell starts what it puts into the background with SIGINT ignored
    code = (
        f"{SMALL_BATCHES}import signal, time\nreal, calls = p.run_logits, []\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def wait(*arguments):\n    calls.append(1)\n    len(calls) < 2 or time.sleep(600)\n"
        "    return real(*arguments)\n"
        "p.run_logits = wait\np.command(sys.argv[1:])"
    )
    arguments = [str(model), str(folder), "--out", str(out), "--provider", "cpu"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "out.csv.part.json").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signals)
    message = process.communicate(timeout=60)[1]
    assert not out.exists()
    if signals == signal.SIGINT:
        assert process.returncode == 130 and message.startswith(
            f"interrupted after {SMALL} files; {SMALL} files are kept"
        )
        assert len(message.splitlines()) == 1
    assert run(model, folder, "--out", out, "--resume").exit_code == 0
    assert run(model, folder, "--out", whole).exit_code == 0
    assert out.read_bytes() == whole.read_bytes()


def test_memory_is_bounded_by_the_batch(model, small, tmp_path, monkeypatch):
    """Of four batches, never more images are alive than two batches have."""
    import weakref

    alive, most, real = [], [], main.callback.__globals__["read_image"]

    def read(found, **more):
        alive.append(weakref.ref(image := real(found, **more)))
        return image

    real_write = output.Partial.write
    monkeypatch.setattr("ltpipe.predict.read_image", read)
    monkeypatch.setattr(
        output.Partial,
        "write",
        lambda self, *a: most.append(sum(r() is not None for r in alive)) or real_write(self, *a),
    )
    assert run(model, many(tmp_path / "in", 4 * SMALL), "--out", tmp_path / "x.csv").exit_code == 0
    assert len(most) == 4 and max(most) <= 2 * SMALL


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
    return identity(**recipe) | exported_by(spec.parity) | data | {"image_size": 16, "checkpoint": digest_bytes(b"x")}


def test_the_stage_predicts_val_and_test_in_the_order_of_the_manifest(spec, manifest, images, recipe, known):
    table = predict(build(known, size=16), manifest, images, parity=spec.parity, checkpoint=b"x", **recipe)
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


@pytest.mark.parametrize("fact", ["cell", "seed", "code", "recipe", "data", "classes", "exported", "checkpoint"])
def test_the_stage_refuses_a_model_of_another_state(spec, manifest, images, recipe, known, fact):
    other = known | {fact: ["other"] if fact == "classes" else "other"}
    with pytest.raises(Refused, match=r"the model of digits_glt\.ce\.s0 is of another state: ") as refused:
        predict(build(other, size=16), manifest, images, parity=spec.parity, checkpoint=b"x", **recipe)
    again = "--tags=export,evaluate" if fact in ("exported", "checkpoint") else "--namespaces=digits_glt.ce.s0"
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


@pytest.mark.parametrize("out", [None, "out.csv", "out.jsonl"])
def test_predicting_imports_neither_torch_nor_kedro_nor_pandas(model, pictures, tmp_path, out):
    code = (
        "import sys\n"
        "from ltpipe.predict import command as main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'torch', 'kedro', 'pandas', 'pyarrow', 'great_expectations', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", code, str(model), str(pictures), "--provider", "cpu"]
    command += ["--out", str(tmp_path / out)] if out else []
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / out).read_text().splitlines() if out else rows(done.stdout)) >= 3
