"""A user's own photographs, cropped from whole pictures, under `dvc repro` and `kedro run`.

The tests are one story in order; each leaves the copy for the next.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import test_own_data as own
import yaml
from copied_project import call
from PIL import Image

pytestmark = pytest.mark.slow

RECIPE = {"augment": {"resized_crop": [0.08, 1.0], "flip": True, "colour_jitter": [0.4, 0.4, 0.4]}, "workers": 2}


def write(folder, upsampled="whole", **source):
    """Write the benchmark `own`. upsampled: of expect.crops; by default no more than whole pictures give."""
    benchmark = own.BENCHMARK | {"schedule": own.BENCHMARK["schedule"] | RECIPE}
    benchmark["source"] = own.BENCHMARK["source"] | {"options": {"root": str(folder.parent / "images")}} | source
    benchmark["expect"] = own.BENCHMARK["expect"] | {"crops": {"upsampled": upsampled}}
    (folder / "conf/base/parameters/own.yml").write_text(yaml.safe_dump({"own": benchmark}))


def draw_photograph(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, format="BMP")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The project's files in a git repository of their own, with a benchmark on a folder of photographs beside it."""
    folder = tmp_path_factory.mktemp("own") / "project"
    for name in ("src", "pipelines", "conf", ".dvc"):
        ignored = shutil.ignore_patterns("cache", "tmp", "__pycache__", "local")
        shutil.copytree(own.ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", ".gitignore", ".dvcignore"):
        shutil.copy(own.ROOT / name, folder)
    for label, name in enumerate(own.CLASSES):
        for number in range(8):
            draw_photograph(folder.parent / "images" / name / f"{number}.bmp", 100 * label + number)
    write(folder, pictures="files")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    done = call(folder, "ltpipe", "generate", "own")
    assert done.returncode == 0, done.stderr
    return folder


def identity(folder):
    return json.loads((folder / "data/05_model_input/own/data_identity.json").read_text())["data"]


def test_training_from_files_runs_and_its_crops_are_measured(copy):
    done = call(copy, "dvc", "repro", "pipelines/dvc/own/dvc.yaml:train-own-ce-s0")
    assert done.returncode == 0, done.stderr + done.stdout
    validation = json.loads((copy / "data/08_reporting/own/validation.json").read_text())
    facts = validation["crops"]["train"]
    assert facts["upsampled"] == facts["upsampled_whole"] < 0.1 and facts["median"] == facts["median_whole"] > 1.5
    assert "crops of train from files: 4.5 % are upsampled" in done.stdout + done.stderr
    assert not (copy / "data/05_model_input/own/pictures.npy").exists()


def test_an_edit_outside_of_the_square_trains_again(copy):
    assert own.repro(copy, "train-own-ce-s0") == ["fetch-own"]
    before = identity(copy)
    train = pd.read_parquet(copy / "data/05_model_input/own/originals.parquet")["file"][0].split("/", 1)[1]
    path = copy.parent / "images" / train
    pixels = np.asarray(Image.open(path)).copy()
    pixels[:, 0] = 255 - pixels[:, 0]  # of 60 columns, the square is of the middle 40
    squares = np.load(copy / "data/05_model_input/own/images.npy")
    Image.fromarray(pixels).save(path, format="BMP")
    done = call(copy, "kedro", "run", "--pipeline=own", "--tags=train")
    assert done.returncode == 2 and "have changed since the split was drawn" in done.stderr + done.stdout
    assert own.repro(copy, "train-own-ce-s0") == ["fetch-own", "split-own", "train-own-ce-s0"]
    assert (np.load(copy / "data/05_model_input/own/images.npy") == squares).all()
    assert identity(copy) != before


def test_whole_pictures_are_packed_and_too_small_ones_are_refused(copy):
    write(copy, 0.2, pictures="packed", shorter_side=32)
    assert call(copy, "ltpipe", "generate", "own").returncode == 0
    assert own.repro(copy, "train-own-ce-s0") == ["parameters-own", "fetch-own", "split-own", "train-own-ce-s0"]
    sizes = np.load(copy / "data/05_model_input/own/picture_sizes.npy")
    assert (sizes == [48, 32]).all()
    assert len(np.load(copy / "data/05_model_input/own/pictures.npy")) == len(sizes) * 48 * 32 * 3
    write(copy, pictures="packed", shorter_side=32)
    done = call(copy, "dvc", "repro", "pipelines/dvc/own/dvc.yaml:split-own")
    assert done.returncode != 0
    assert "of random boxes are enlarged" in done.stderr + done.stdout
    assert not (copy / "data/05_model_input/own/manifest.parquet").exists()


def test_the_command_without_kedro_trains_the_same(copy):
    write(copy, pictures="files")
    assert call(copy, "ltpipe", "generate", "own").returncode == 0
    own.repro(copy, "train-own-ce-s0")
    prepared = str(copy / "data/05_model_input/own")
    command = ("ltpipe", "train", prepared, "--benchmark", "conf/base/parameters/own.yml", "--out", "out")
    done = call(copy, *command, "--device", "cpu")
    assert done.returncode == 2 and "--pictures" in done.stderr
    done = call(copy, *command, "--device", "cpu", "--pictures", "data/01_raw/image_folder")
    assert done.returncode == 0, done.stderr
    first = (copy / "data/06_models/own/ce/s0/checkpoint.safetensors").read_bytes()
    assert (copy / "out/ce/s0/checkpoint.safetensors").read_bytes() == first
