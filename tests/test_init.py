"""`ltpipe init`: from a folder of pictures to a benchmark; its rules, its refusals, and the whole way to a gate."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner
from copied_project import ROOT, call, copy_project
from PIL import Image

from ltpipe.benchmark import load
from ltpipe.config.shell import typed
from ltpipe.init import command
from ltpipe.survey import choices, cost, lookalikes, revise, show
from ltpipe.training import signals

SIZES = {"ant": 110, "bee": 70, "cat": 45, "dog": 30, "elk": 20, "fox": 15}
COLOURS = {"ant": (220, 40, 40), "bee": (40, 200, 60), "cat": (50, 60, 220), "dog": (210, 200, 40)}
COLOURS |= {"elk": (200, 50, 200), "fox": (40, 200, 210), "gnu": (240, 240, 240)}


def draw_picture(path: Path, name: str, seed: int) -> None:
    """Write a JPEG of 24 x 20 to 30 pixels: the colour of the class, a bar at a place of its own, and noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    pixels = random.normal(110, 25, (24, random.randint(20, 31), 3))
    top, left = random.randint(2, 12), random.randint(2, 8)
    pixels[top : top + 9, left : left + 10] = COLOURS[name] + random.normal(0, 25, 3)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def draw_folder(folder: Path, sizes=SIZES) -> Path:
    for label, (name, count) in enumerate(sizes.items()):
        for number in range(count):
            draw_picture(folder / name / f"{number:03d}.jpg", name, 1000 * label + number)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder that init takes for the project: settings and nothing else, as init reads no code of it."""
    folder = tmp_path_factory.mktemp("init") / "project"
    shutil.copytree(ROOT / "conf/base", folder / "conf/base")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def invoke(project, monkeypatch):
    """Return a function: arguments -> the result of init in the project. Its steps of training are not measured."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("LTPIPE_IMAGE_FOLDER", raising=False)
    monkeypatch.setattr(cost, "measure_step", lambda spec, squares: (0.01, 1000))
    return lambda *words: CliRunner().invoke(command, [str(word) for word in words])


@pytest.fixture
def photos(tmp_path) -> Path:
    return draw_folder(tmp_path / "photos", {"ant": 12, "bee": 7, "cat": 3})


def written(project: Path, name: str) -> dict:
    return yaml.safe_load((project / f"conf/base/parameters/{name}.yml").read_text())[name]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "01_raw" not in str(path)}


def test_a_folder_becomes_a_valid_benchmark_with_its_counts(project, invoke, photos):
    done = invoke(photos, "--name", "first")
    assert done.exit_code == 0, done.output
    spec = load(project / "conf/base", ["first"])["first"]
    assert spec.expect.plain_counts() == {"train": [9, 5, 1], "val": [1, 1, 1], "test": [2, 1, 1]}
    assert "fewer than 5 test pictures, whose recall says little: ant (2), bee (1), cat (1)" in done.output
    assert "fewer than 5 val pictures, on which post-hoc runs choose their tau: ant (1), bee (1)" in done.output
    assert written(project, "first")["gate"] == {"metrics": []}  # one test picture of the few
    assert written(project, "first")["source"] == {"size": 16}


def test_with_a_backbone_the_benchmark_starts_from_its_weights(project, invoke, photos, monkeypatch):
    monkeypatch.setattr("ltpipe.init._has_gpu", lambda: False)
    (project / "weights").mkdir()
    (project / "weights/w.safetensors").touch()
    words = (photos, "--name", "tuned", "--backbone", "test_vit")
    done = invoke(*words, "--weights", "weights/w.safetensors", "--pretrained-on", "moths", "--seeds", 2)
    assert done.exit_code == 0, done.output
    spec = load(project / "conf/base", ["tuned"])["tuned"]
    assert (spec.model.image, spec.source.size, spec.model.mean) == (160, 183, (0.5,) * 3)
    assert spec.model.options["weights"] == "weights/w.safetensors"  # relative to the project, for every machine
    assert spec.model.seen() == "moths" and list(spec.runs) == ["head", "head_adjusted"] and len(spec.seeds) == 2
    assert "have been trained on moths" in done.output
    assert "nothing changed" in invoke(photos, "--name", "tuned").output  # the network is remembered
    for more in ([], ["--update"]):
        other = invoke(photos, "--name", "tuned", "--backbone", "test_resnet.r160_in1k", *more)
        assert other.exit_code == 2 and "tuned.yml was written with test_vit; take another --name" in other.output
    monkeypatch.setattr("ltpipe.init._has_gpu", lambda: True)  # another machine
    draw_picture(photos / "ant/new.jpg", "ant", 77)
    assert invoke(photos, "--name", "tuned", "--update").exit_code == 0
    assert list(load(project / "conf/base", ["tuned"])["tuned"].runs) == ["head", "head_adjusted"]


def test_another_network_is_no_update(project, invoke, photos):
    assert invoke(photos, "--name", "small").exit_code == 0
    before = (project / "conf/base/parameters/small.yml").read_bytes()
    done = invoke(photos, "--name", "small", "--backbone", "test_vit.r160_in1k", "--update")
    assert done.exit_code == 2 and "was written with a network from random weights" in done.output
    assert (project / "conf/base/parameters/small.yml").read_bytes() == before


def test_an_update_keeps_mean_and_std(project, invoke, photos):
    assert invoke(photos, "--name", "scaled").exit_code == 0
    before = written(project, "scaled")["model"]
    for number in range(4):
        draw_picture(photos / f"ant/new{number}.jpg", "ant", 70 + number)
    done = invoke(photos, "--name", "scaled", "--update")
    assert done.exit_code == 0 and "changed expect.class_counts: the table above" in done.output
    assert written(project, "scaled")["model"] == before


def test_with_a_gpu_all_weights_are_trained_too(project, invoke, photos, monkeypatch):
    monkeypatch.setattr("ltpipe.init._has_gpu", lambda: True)
    assert invoke(photos, "--name", "whole", "--backbone", "test_vit.r160_in1k", "--epochs", 7).exit_code == 0
    spec = load(project / "conf/base", ["whole"])["whole"]
    assert list(spec.runs) == ["head", "head_adjusted", "finetune", "finetune_adjusted"]
    assert (spec.schedule.epochs, spec.schedule.lr) == (7, 0.01) and spec.model.options["weights"] == "timm"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weights", "conf/base/catalog.yml"], "belong to a network: name it by --backbone"),
        (["--backbone", "test_vit.r160_in1k", "--size", "64"], "the size is that of the network"),
        (["--backbone", "test_vti.r160_in1k"], "nearest: .*test_vit"),
        (["--backbone", "test_vit"], "needs the tag in the name"),
        (["--backbone", "test_vit", "--weights", "no.pth"], r"no file no\.pth"),
        (["--backbone", "test_vit", "--weights", "conf/base/catalog.yml"], "pretrained_on is missing"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused_and_nothing_is_written(project, invoke, photos, words, said):
    done = invoke(photos, "--name", "wrong", *words)
    assert done.exit_code == 2 and re.search(said, done.output), done.output
    assert not (project / "conf/base/parameters/wrong.yml").exists()


def test_a_folder_outside_of_the_project_is_a_fact_of_the_machine(project, invoke, photos):
    assert invoke(photos, "--name", "outside").exit_code == 0
    assert str(photos) not in (project / "conf/base/parameters/outside.yml").read_text()
    local = yaml.safe_load((project / "conf/local/parameters/outside.yml").read_text())
    assert local == {"outside": {"source": {"options": {"root": str(photos)}}}}


def test_a_folder_inside_of_the_project_is_named_relative_to_it(project, invoke):
    draw_folder(project / "photos", {"ant": 6, "bee": 5})
    assert invoke("photos", "--name", "inside").exit_code == 0
    assert written(project, "inside")["source"]["options"] == {"root": "photos"}
    assert not (project / "conf/local/parameters/inside.yml").exists()
    shutil.rmtree(project / "photos")


def test_broken_and_equal_files_are_shown_and_the_options_are_set(project, invoke, photos):
    (photos / "ant/broken.jpg").write_bytes(b"")
    shutil.copy(photos / "ant/000.jpg", photos / "ant/copy.jpg")
    done = invoke(photos, "--name", "messy")
    assert "ant/broken.jpg: the file is empty" in done.output and "ant/copy.jpg is ant/000.jpg" in done.output
    assert written(project, "messy")["source"]["options"] == {"broken": "exclude", "duplicates": "exclude"}
    assert "12 pictures of" not in done.output and "22 pictures of 3 classes" in done.output


def test_a_picture_of_a_single_colour_is_a_warning(invoke, photos):
    Image.new("RGB", (24, 24)).save(photos / "bee/000.jpg")
    assert (
        "warning: 1 of a single colour; nothing is left out:\n  bee/000.jpg\n"
        in invoke(photos, "--name", "black").output
    )


def test_pictures_that_look_alike_are_a_warning(invoke, photos):
    smooth = Image.fromarray(textures(1)[0]).resize((60, 60), Image.Resampling.BICUBIC)
    smooth.save(photos / "bee/fine.jpg", quality=95)
    smooth.save(photos / "bee/coarse.jpg", quality=60)
    done = invoke(photos, "--name", "alike")
    assert done.exit_code == 0
    assert re.search(r"warning: 1 pairs look alike, [01] of them in two splits", done.output)
    assert re.search(r"bee/coarse\.jpg \(\w+\), bee/fine\.jpg \(\w+\)", done.output)


def test_splits_that_the_folders_state_are_kept(project, invoke, tmp_path):
    for seed, (split, ants) in enumerate((("train", 5), ("valid", 2), ("test", 3))):
        for name, count in (("ant", ants), ("bee", ants - 1)):
            for number in range(count):
                draw_picture(tmp_path / "data" / split / name / f"{number}.jpg", name, 100 * seed + number)
    done = invoke(tmp_path / "data", "--name", "official")
    assert done.exit_code == 0, done.output
    counts = load(project / "conf/base", ["official"])["official"].expect.plain_counts()
    assert counts == {"train": [5, 4], "val": [2, 1], "test": [3, 2]}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_of_pictures_is_read(project, invoke, photos, ending):
    rows = pd.DataFrame({"path": [f"{name}/{k:03d}.jpg" for name in ("ant", "bee") for k in range(5)]})
    rows["label"] = rows["path"].str.split("/").str[0]
    path = photos / f"list.{ending}"
    rows.to_csv(path, index=False) if ending == "csv" else rows.to_parquet(path)
    assert invoke(path, "--name", f"of_{ending}").exit_code == 0
    local = yaml.safe_load((project / f"conf/local/parameters/of_{ending}.yml").read_text())
    assert local[f"of_{ending}"]["source"]["options"]["root"] == str(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{photos}", "--name", "Upper"], "a name is lower-case letters, digits and _"),
        (["{photos}", "--name", "2nd"], "a name is lower-case letters"),
        (["{photos}", "--name", "digits_glt"], "digits_glt.yml is there, and init did not write it"),
        (["{photos}/gone", "--name", "gone"], "there is no folder or file "),
        (["{photos}", "--name", "none_yet", "--update"], "there is no conf/base/parameters/none_yet.yml yet"),
        (["{photos}/one", "--name", "one"], "holds one class, ant; a classifier needs two"),
        (["{photos}/short", "--name", "short"], "a class needs 3 pictures, and these have fewer: bee (2)"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(project, invoke, photos, words, message):
    draw_folder(photos / "one", {"ant": 4})
    draw_folder(photos / "short", {"ant": 4, "bee": 2})
    before = snapshot(project)
    done = invoke(*(word.format(photos=photos) for word in words))
    assert done.exit_code == 2 and message in done.output, done.output
    assert len(done.output.strip().splitlines()) == 1
    assert snapshot(project) == before


def test_equal_pictures_of_two_classes_are_refused(project, invoke, photos):
    shutil.copy(photos / "ant/000.jpg", photos / "bee/wrong.jpg")
    before = snapshot(project)
    done = invoke(photos, "--name", "two_labels")
    assert done.exit_code == 2 and "ant/000.jpg and bee/wrong.jpg have the same content" in done.output
    assert snapshot(project) == before


def test_outside_of_a_project_init_is_refused(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command, [str(photos), "--name", "x"])
    assert done.exit_code == 2 and "is not in an ltpipe project" in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_the_second_time_nothing_changed_and_nothing_is_written(project, invoke, photos):
    assert invoke(photos, "--name", "again").exit_code == 0
    before = snapshot(project)
    for words in ([], ["--update"]):
        done = invoke(photos, "--name", "again", *words)
        assert done.exit_code == 0
        assert done.output == "nothing changed: the 22 pictures are those of conf/base/parameters/again.yml\n"
    assert snapshot(project) == before


def test_a_folder_that_moved_is_shown_and_taken_in(project, invoke, photos, tmp_path):
    invoke(photos, "--name", "moved")
    before = snapshot(project)
    moved = photos.rename(tmp_path / "elsewhere")
    done = invoke(moved, "--name", "moved")
    assert f"  folder: {photos} -> {moved}\n" in done.output and "nothing is written" in done.output
    assert snapshot(project) == before
    assert invoke(moved, "--name", "moved", "--update").exit_code == 0
    local = yaml.safe_load((project / "conf/local/parameters/moved.yml").read_text())
    assert local == {"moved": {"source": {"options": {"root": str(moved)}}}}
    assert "nothing changed" in invoke(moved, "--name", "moved").output


def test_a_folder_that_moved_into_the_project_is_read_there(project, invoke, photos):
    invoke(photos, "--name", "inward")
    shutil.move(photos, project / "inward")
    assert f"folder: {photos} -> inward" in invoke("inward", "--name", "inward").output
    assert invoke("inward", "--name", "inward", "--update").exit_code == 0
    local = yaml.safe_load((project / "conf/local/parameters/inward.yml").read_text())
    assert local["inward"]["source"]["options"] == written(project, "inward")["source"]["options"] == {"root": "inward"}
    assert "nothing changed" in invoke("inward", "--name", "inward").output
    shutil.rmtree(project / "inward")


def test_a_machine_that_does_not_know_the_folder_is_told(project, invoke, photos, monkeypatch):
    invoke(photos, "--name", "afar")
    shutil.rmtree(project / "conf/local")
    assert f"folder: not stated on this machine -> {photos}" in invoke(photos, "--name", "afar").output
    monkeypatch.setenv("LTPIPE_IMAGE_FOLDER", str(photos))
    assert "nothing changed" in invoke(photos, "--name", "afar").output


def change(photos: Path) -> None:
    draw_folder(photos, {"dog": 4})
    draw_picture(photos / "ant/new.jpg", "ant", 77)
    draw_picture(photos / "ant/001.jpg", "ant", 78)
    (photos / "bee/002.jpg").unlink()


def test_what_changed_is_shown_and_written_only_on_request(project, invoke, photos):
    invoke(photos, "--name", "grown")
    before = snapshot(project)
    change(photos)
    done = invoke(photos, "--name", "grown")
    for line in (
        "class dog is new, 4 pictures",
        "class ant: 12 -> 13 pictures",
        "class bee: 7 -> 6 pictures",
        "added: 5 pictures",
        "removed: 1 pictures",
        "changed: 1 pictures",
        "ant/001.jpg",
        "bee/002.jpg",
        f"nothing is written; to rewrite what init wrote: ltpipe init {photos} --name grown --update",
    ):
        assert line in done.output, done.output
    assert snapshot(project) == before
    done = invoke(photos, "--name", "grown", "--update")
    assert done.exit_code == 0 and "changed expect.classes: 3 -> 4" in done.output
    assert load(project / "conf/base", ["grown"])["grown"].expect.classes == 4
    assert "26 pictures of 4 classes" in written_header(project, "grown")
    assert "nothing changed" in invoke(photos, "--name", "grown").output


def written_header(project: Path, name: str) -> str:
    return revise.split_header((project / f"conf/base/parameters/{name}.yml").read_text())[0]


def test_an_update_keeps_edits_and_comments(project, invoke, photos):
    invoke(photos, "--name", "edited")
    path = project / "conf/base/parameters/edited.yml"
    text = path.read_text().replace("epochs: 100", "epochs: 7  # enough for a look")
    text = text.replace("expect:\n", "expect:  # in integers\n") + "  seeds: {s0: 0, s1: 5}\n"
    path.write_text(text)
    change(photos)
    done = invoke(photos, "--name", "edited", "--update")
    assert done.exit_code == 0, done.output
    assert "kept schedule.epochs: 7, an edit (it would be 100)" in done.output
    spec = load(project / "conf/base", ["edited"])["edited"]
    assert (spec.schedule.epochs, spec.seeds, spec.expect.classes) == (7, {"s0": 0, "s1": 5}, 4)
    assert "# enough for a look" in path.read_text() and "# in integers" in path.read_text()


def test_a_size_that_was_asked_for_stays_until_another_is(project, invoke, photos):
    assert invoke(photos, "--name", "sized", "--size", "32").exit_code == 0
    assert load(project / "conf/base", ["sized"])["sized"].model.backbone == "resnet32"
    draw_picture(photos / "ant/new.jpg", "ant", 77)
    assert invoke(photos, "--name", "sized", "--update").exit_code == 0
    assert written(project, "sized")["source"]["size"] == 32
    assert "size: 32 -> 16" in invoke(photos, "--name", "sized", "--size", "16").output
    assert invoke(photos, "--name", "sized", "--size", "16", "--update").exit_code == 0
    model = load(project / "conf/base", ["sized"])["sized"].model
    assert (model.image, model.backbone, model.options) == (16, "cnn", {"width": 16})


def test_epochs_and_seeds_that_were_asked_for_stay_until_others_are(project, invoke, photos):
    assert invoke(photos, "--name", "short", "--epochs", "3", "--seeds", "2").exit_code == 0
    assert "Epochs 3 (by your choice), batch 16" in written_header(project, "short").replace("\n# ", " ")
    draw_picture(photos / "ant/new.jpg", "ant", 77)
    assert "epochs:" not in invoke(photos, "--name", "short").output
    assert invoke(photos, "--name", "short", "--update").exit_code == 0
    spec = load(project / "conf/base", ["short"])["short"]
    assert (spec.schedule.epochs, spec.schedule.warmup, spec.seeds) == (3, 0, {"s0": 0, "s1": 1})
    assert "epochs: 3 -> 5" in invoke(photos, "--name", "short", "--epochs", "5").output
    assert invoke(photos, "--name", "short", "--epochs", "5", "--update").exit_code == 0
    assert load(project / "conf/base", ["short"])["short"].schedule.epochs == 5
    path = project / "conf/base/parameters/short.yml"
    path.write_text(path.read_text().replace("epochs: 5", "epochs: 7"))
    assert "epochs: 7 -> 4" in invoke(photos, "--name", "short", "--epochs", "4", "--seeds", "3", "--update").output
    spec = load(project / "conf/base", ["short"])["short"]
    assert (spec.schedule.epochs, len(spec.seeds)) == (4, 3), "what is asked for is no edit to be kept"
    assert invoke(photos, "--name", "short", "--seeds", "1").exit_code == 2


def test_tested_pictures_that_will_be_trained_on_are_counted():
    before = {"a": "test", "b": "test", "c": "test", "d": "train", "gone": "test"}
    lines = show.describe_moves(before, {"a": "test", "b": "train", "c": "val", "d": "test"})
    assert lines == ["split: 2 of 3 test pictures will be in train or val, where the next model learns them"]
    assert show.describe_moves(before, before) == []


def test_after_an_acceptance_the_advice_is_another(project, invoke, photos):
    invoke(photos, "--name", "known")
    (project / "conf/accepted").mkdir(exist_ok=True)
    (project / "conf/accepted/known.json").write_text("{}")
    draw_picture(photos / "ant/new.jpg", "ant", 77)
    output = invoke(photos, "--name", "known", "--update").output
    assert "exit 3: the accepted numbers are of other pictures" in output
    assert re.search(r'--reason "\d+ pictures"', output)


def test_the_users_own_split_is_drawn_after_an_edit(project, invoke, photos):
    invoke(photos, "--name", "halves")
    path = project / "conf/base/parameters/halves.yml"
    path.write_text(
        path.read_text().replace(
            "    options:\n      groups", "    options:\n      test: {fraction: 0.5}\n      groups"
        )
    )
    draw_picture(photos / "ant/new.jpg", "ant", 77)
    assert invoke(photos, "--name", "halves", "--update").exit_code == 0
    assert load(project / "conf/base", ["halves"])["halves"].expect.plain_counts()["test"] == [6, 3, 1]


def test_an_update_that_does_not_fit_the_edits_is_refused(project, invoke, photos):
    invoke(photos, "--name", "torn")
    path = project / "conf/base/parameters/torn.yml"
    path.write_text(path.read_text().replace("backbone: cnn", "backbone: cnm"))
    draw_picture(photos / "ant/new.jpg", "ant", 77)
    before = snapshot(project)
    done = invoke(photos, "--name", "torn", "--update")
    assert done.exit_code == 2 and "no 'cnm' in ltpipe.backbones" in done.output
    assert snapshot(project) == before


def test_where_init_never_ran_only_what_the_data_decide_is_rewritten(project, invoke, photos):
    invoke(photos, "--name", "cloned")
    shutil.rmtree(project / "data")  # git does not know it
    assert "nothing changed" in invoke(photos, "--name", "cloned").output
    path = project / "conf/base/parameters/cloned.yml"
    path.write_text(path.read_text().replace("epochs: 100", "epochs: 8"))
    draw_picture(photos / "ant/new.jpg", "ant", 77)
    done = invoke(photos, "--name", "cloned")
    assert "train: [9, 5, 1] -> [10, 5, 1] pictures" in done.output and "init was run elsewhere" in done.output
    assert invoke(photos, "--name", "cloned", "--update").exit_code == 0
    spec = load(project / "conf/base", ["cloned"])["cloned"]
    assert spec.schedule.epochs == 8 and spec.expect.plain_counts()["train"] == [10, 5, 1]


@pytest.mark.parametrize(
    ("shorter", "gpu", "size"),
    [
        (10, True, 16),
        (24, True, 16),
        (32, True, 32),
        (63, False, 32),
        (480, False, 64),
        (200, True, 112),
        (480, True, 224),
    ],
)
def test_the_size_is_the_largest_that_enlarges_at_most_half_of_the_pictures(shorter, gpu, size):
    sizes = np.array([[shorter, 900], [900, shorter], [shorter, shorter]])
    assert choices.choose_size(sizes, gpu) == size


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("size", choices.SIZES)
def test_every_size_has_a_network_of_the_menu(size, gpu):
    from ltpipe.models.model import Model

    Model.model_validate(choices.choose_network(size, gpu) | {"image": size})


@pytest.mark.parametrize(
    ("images", "epochs", "batch", "lr"),
    [(100, 100, 16, 0.0125), (1050, 91, 32, 0.025), (2600, 100, 128, 0.1), (10_000, 60, 128, 0.1)],
)
def test_epochs_and_batch_follow_the_number_of_training_images(images, epochs, batch, lr):
    schedule = choices.choose_schedule(images, 32)
    assert (schedule["epochs"], schedule["batch"], schedule["lr"]) == (epochs, batch, lr)


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ([500, 101, 100, 20, 19], ["many", "many", "medium", "medium", "few"]),
        ([80, 51, 33, 22, 15, 11], ["many", "many", "medium", "medium", "few", "few"]),
        ([5, 500, 50, 500], ["few", "many", "medium", "many"]),
        ([900, 800, 700, 600, 500], ["many", "medium", "medium", "few", "few"]),
        ([9, 8, 7], ["many", "medium", "few"]),
        ([9, 300], ["few", "many"]),
    ],
)
def test_every_group_has_a_class(counts, groups):
    assert choices.choose_groups(counts).of_classes(np.array(counts)).tolist() == groups


def test_mean_and_std_are_those_of_the_pixels():
    squares = np.zeros((2, 1, 1, 3), np.uint8)
    squares[1, 0, 0] = (255, 51, 0)
    assert choices.measure_pixels(squares) == {"mean": [0.5, 0.1, 0.0], "std": [0.5, 0.1, 0.001]}


def test_the_sample_is_spread_over_all_rows():
    assert choices.spread(np.arange(100), 3).tolist() == [0, 50, 99]
    assert choices.spread(np.arange(2), 3).tolist() == [0, 1]


def textures(count: int) -> np.ndarray:
    random = np.random.RandomState(0)
    coarse = random.randint(0, 256, (count, 8, 9, 3)).astype(np.uint8)
    return coarse.repeat(9, axis=1).repeat(8, axis=2)


def test_a_difference_hash_says_where_the_picture_gets_brighter():
    picture = textures(1)
    grey = (picture[0, ::9, ::8] @ lookalikes.GREY).reshape(8, 9)
    expected = np.packbits((grey[:, 1:] > grey[:, :-1]).reshape(-1)).view(np.uint64)[0]
    assert lookalikes.difference_hashes(picture)[0] == expected


def test_pairs_are_found_that_differ_in_few_bits_and_plain_pictures_are_left_out(monkeypatch):
    hashes = lookalikes.difference_hashes(textures(300))
    hashes[299] = hashes[3] ^ np.uint64(0b1111)
    hashes[298] = hashes[4] ^ np.uint64(0b11111)
    hashes[5], hashes[6] = 0, 1
    assert lookalikes.find_pairs(hashes) == [(3, 299)]
    monkeypatch.setattr(lookalikes, "ALL_PAIRS", 299)
    hashes = np.append(hashes, hashes[7:9])
    assert lookalikes.find_pairs(hashes) == [(7, 300), (8, 301)]


def test_a_step_of_the_real_network_is_measured(monkeypatch):
    monkeypatch.setattr(cost, "SECONDS", 0.0)
    spec = load(ROOT / "conf/base", ["digits_glt"])["digits_glt"]
    squares = np.zeros((5, spec.model.image, spec.model.image, 3), np.uint8)
    seconds, parameters = cost.measure_step(spec, squares)
    assert seconds > 0 and parameters > 1000


def test_a_step_of_large_images_is_measured_on_fewer_and_counted_as_a_whole_one(monkeypatch):
    """A batch of 64 images of 224 pixels takes minutes on a CPU."""
    from ltpipe.training import loop

    seen, forward = [], loop.forward
    monkeypatch.setattr(
        loop, "forward", lambda network, images, *rest: seen.append(len(images)) or forward(network, images, *rest)
    )
    monkeypatch.setattr(cost, "SECONDS", 0.0)
    spec = load(ROOT / "conf/base", ["finetune_folder"])["finetune_folder"]
    small = spec.model.with_changes({"options": {"name": "test_resnet", "weights": ""}})
    clock = iter(range(100))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: next(clock))  # every step takes 1 s
    seconds, _ = cost.measure_step(spec.model_copy(update={"model": small}), np.zeros((3, 256, 256, 3), np.uint8))
    assert set(seen) == {10} and seconds == 64 / 10


def test_a_post_hoc_run_trains_nothing():
    spec = load(ROOT / "conf/base", ["image_folder"])["image_folder"]
    assert cost.trained_epochs(spec) == 2 * 3 * spec.schedule.epochs
    assert cost.passes(spec) == 3  # the post-hoc run's


def test_the_table_is_drawn_in_ascii_where_the_terminal_is(monkeypatch):
    splits = {"train": [4, 8], "val": [1, 1], "test": [1, 2]}
    for encoding, bar, name in (("utf-8", "\u2588", "d\u00e9j\u00e0"), ("ascii", "#", "d\\xe9j\\xe0")):
        monkeypatch.setattr(show.sys, "stdout", type("Stream", (), {"encoding": encoding}))
        lines = show.table(["d\u00e9j\u00e0", "bee"], splits, ["few", "many"])
        assert lines[1].endswith(bar * 30) and lines[2].endswith(f"few     {bar * 15}") and name in lines[2]


def test_of_many_classes_the_first_and_the_last_are_shown():
    counts = list(range(100, 0, -1))
    splits = dict.fromkeys(("train", "val", "test"), counts)
    lines = show.table([f"c{k}" for k in range(100)], splits, ["few"] * 100)
    assert len(lines) == 1 + 40 + 1 and lines[21] == "... 60 classes ..."


def test_printed_commands_can_be_typed_where_uv_runs_them(monkeypatch):
    assert typed("kedro run") == "kedro run"
    monkeypatch.setenv("UV", "/bin/uv")  # uv names itself to what it starts
    assert typed("kedro run") == "uv run kedro run" and signals.command_again() == "the same command"
    monkeypatch.setenv("DVC_STAGE", "train")
    assert signals.command_again() == "uv run dvc repro"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_from_a_folder_of_pictures_to_a_gate_without_an_edit(tmp_path):
    """Every command is the one that init prints; then pictures are added, and the next run notices."""
    copy, photos = copy_project(tmp_path / "project"), draw_folder(tmp_path / "photos")
    done = call(copy, "ltpipe", "init", str(photos), "--name", "photos")
    assert done.returncode == 0, done.stderr
    run, accept, gate, predict, ledger = re.findall(r"^  ((?:kedro|ltpipe) .*)$", done.stdout, re.MULTILINE)
    said = commanded(copy, run, 6, "photos has no accepted baseline yet")
    model = re.search(r"recommended by validation: \S+, (\S+/model.onnx)", said)[1]
    commanded(copy, accept, 0, "wrote conf/accepted/photos.json: commit conf")
    assert "photos.ce.s0: kept" in commanded(copy, gate, 0, "photos: the gate passes")
    commanded(copy, predict.replace("MODEL", model, 1), 0, "path,label,class,probability")
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
    commanded(copy, ledger, 0, "")
    done = call(copy, *ledger.partition("then: ")[2].split(), "--dry")
    assert done.returncode == 0 and "train-photos-ce-s0' didn't change" in done.stdout, done.stdout
    notices_new_pictures(copy, photos)


def commanded(copy: Path, line: str, code: int, said: str) -> str:
    """Run a line that was printed; return what it said."""
    done = call(copy, "sh", "-c", line)
    spoken = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == code and said in spoken, done.stderr
    return spoken


def notices_new_pictures(copy: Path, photos: Path) -> None:
    """The commands of docs/own_images.md."""
    run, init = "kedro run --pipeline=photos", ("ltpipe", "init", str(photos), "--name", "photos")
    draw_folder(photos, SIZES | {"fox": 20})
    assert "expect_class_counts_to_equal" in commanded(copy, run, 2, "(fox)")
    assert "class fox: 15 -> 20 pictures" in call(copy, *init).stdout
    assert call(copy, *init, "--update").returncode == 0
    assert "another recipe" not in commanded(copy, run, 3, "other pictures or another split")
    commanded(copy, 'ltpipe accept photos --reason "80 pictures more"', 0, "wrote conf/accepted/photos.json")


@pytest.mark.parametrize(
    ("test", "groups", "gate"),
    [
        ([60, 30, 25], ["many", "few", "few"], {}),
        ([60, 30, 19], ["many", "few", "few"], {"gate": {"metrics": []}}),
        ([60, 60], ["many", "medium"], {"gate": {"metrics": []}}),
    ],
)
def test_the_few_gate_if_they_have_fifty_test_pictures(test, groups, gate):
    assert choices.choose_gate(test, groups) == gate
