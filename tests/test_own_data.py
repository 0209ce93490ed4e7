"""A user's own images under `dvc repro` and `kedro run`: what changes outside the repository is seen, and nothing else.

The tests are one story in order; each leaves the copy for the next.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from copied_project import call
from PIL import Image

ROOT = Path(__file__).parents[1]
CLASSES = ("ant", "bee", "cat")

pytestmark = pytest.mark.slow

BENCHMARK = {
    "source": {"name": "image_folder", "size": 16, "options": {"root": "images"}},
    "split": {
        "kind": "stratified",
        "options": {
            "val": {"per_class": 2},
            "test": {"per_class": 2},
            "groups": {"by": "rank", "many": 1, "medium": 1},
        },
    },
    "expect": {
        "classes": 3,
        "class_counts": {split: {"classes": 3} for split in ("train", "val", "test")},
        "groups": {"by": "rank", "many": 1, "medium": 1, "split": "train"},
    },
    "model": {"backbone": "cnn", "image": 16, "options": {"width": 4}},
    "schedule": {"epochs": 1, "batch": 8, "lr": 0.05, "weight_decay": 0.0},
    "evaluate": {"protocols": {"lt": {"train": "train", "test": "test"}}},
    "seeds": {"s0": 0},
    "reported": {"why": "a test"},
    "runs": {"ce": {"train": {"method": "ce"}}},
    "gate": {"primary": "lt.accuracy.all", "against": "nothing"},
}


def draw_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (16, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, format="BMP")  # equal sizes whatever the content


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The project's files in a git repository of their own, with a benchmark on a folder beside it."""
    folder = tmp_path_factory.mktemp("own") / "project"
    for name in ("src", "pipelines", "conf", ".dvc"):
        ignored = shutil.ignore_patterns("cache", "tmp", "__pycache__", "local")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    images = folder.parent / "images"
    for label, name in enumerate(CLASSES):
        for number in range(8):
            draw_image(images / name / f"{number}.bmp", 100 * label + number)
    write_benchmark(folder, images)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    done = call(folder, "ltpipe", "generate", "own")
    assert done.returncode == 0, done.stderr
    return folder


def write_benchmark(folder: Path, root: Path) -> None:
    content = BENCHMARK | {"source": BENCHMARK["source"] | {"options": {"root": str(root)}}}
    (folder / "conf/base/parameters/own.yml").write_text(yaml.safe_dump({"own": content}))


def repro(folder: Path, stage: str = "split-own", *options: str) -> list[str]:
    """Run `dvc repro` up to a stage; return the stages that ran."""
    done = call(folder, "dvc", "repro", *options, f"pipelines/dvc/own/dvc.yaml:{stage}")
    assert done.returncode == 0, done.stderr
    return re.findall(r"Running stage '[\w/.]*?:?([\w-]+)'", done.stdout)


def manifest(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "data/05_model_input/own/manifest.parquet")


def packed(folder: Path, image: str) -> np.ndarray:
    row = manifest(folder).set_index("image").loc[image, "row"]
    return np.load(folder / "data/05_model_input/own/images.npy")[int(row)]


def test_the_first_repro_runs_every_stage(copy):
    assert repro(copy) == ["parameters-own", "fetch-own", "split-own"]
    assert repro(copy, "train-own-ce-s0") == ["fetch-own", "train-own-ce-s0"]


def test_an_unchanged_folder_is_looked_at_and_nothing_else_runs(copy):
    assert repro(copy, "train-own-ce-s0") == ["fetch-own"]


def test_a_touched_image_of_the_same_content_runs_nothing_else(copy):
    os.utime(copy.parent / "images/ant/0.bmp", (1, 1))
    assert repro(copy, "train-own-ce-s0") == ["fetch-own"]


def test_a_replaced_image_of_the_same_name_and_size_is_packed_again(copy):
    before = packed(copy, "ant/0.bmp")
    size = (copy.parent / "images/ant/0.bmp").stat().st_size
    draw_image(copy.parent / "images/ant/0.bmp", 999)
    assert (copy.parent / "images/ant/0.bmp").stat().st_size == size
    assert repro(copy) == ["fetch-own", "split-own"]
    assert (packed(copy, "ant/0.bmp") != before).any()
    assert repro(copy, "train-own-ce-s0", "--dry")[-1] == "train-own-ce-s0"


def test_an_added_and_a_removed_image_are_noticed(copy):
    draw_image(copy.parent / "images/bee/new.bmp", 500)
    assert repro(copy) == ["fetch-own", "split-own"]
    assert "bee/new.bmp" in set(manifest(copy)["image"])
    (copy.parent / "images/bee/7.bmp").unlink()
    assert repro(copy) == ["fetch-own", "split-own"]
    assert "bee/7.bmp" not in set(manifest(copy)["image"])


def test_an_earlier_state_comes_back_from_the_cache(copy):
    (copy.parent / "images/bee/new.bmp").rename(copy.parent / "images/bee/7.bmp")
    draw_image(copy.parent / "images/bee/7.bmp", 107)
    assert repro(copy) == ["fetch-own"]
    assert {"bee/7.bmp"} <= set(manifest(copy)["image"]) and "bee/new.bmp" not in set(manifest(copy)["image"])


def test_an_edited_csv_is_noticed(copy):
    rows = [f"{name}/{number}.bmp,{name}" for name in CLASSES for number in range(8)]
    path = copy.parent / "images/list.csv"
    path.write_text("\n".join(["path,label", *rows]) + "\n")
    write_benchmark(copy, path)
    assert repro(copy) == ["parameters-own", "fetch-own", "split-own"]
    path.write_text("\n".join(["path,label", *rows[:-1], "cat/7.bmp,bee"]) + "\n")
    assert repro(copy) == ["fetch-own", "split-own"]
    assert manifest(copy).set_index("image").loc["cat/7.bmp", "class_name"] == "bee"


def test_a_folder_that_is_gone_is_an_error(copy):
    (copy.parent / "images").rename(copy.parent / "elsewhere")
    done = call(copy, "dvc", "repro", "pipelines/dvc/own/dvc.yaml:split-own")
    (copy.parent / "elsewhere").rename(copy.parent / "images")
    assert done.returncode != 0 and "source image_folder: no folder or file" in done.stderr
    assert repro(copy) == ["fetch-own"]


def test_kedro_run_sees_the_same_changes(copy):
    write_benchmark(copy, copy.parent / "images")
    (copy.parent / "images/list.csv").unlink()
    draw_image(copy.parent / "images/ant/kedro.bmp", 700)
    done = call(copy, "kedro", "run", "--pipeline=own", "--tags=fetch,cluster,split")
    assert done.returncode == 0, done.stderr
    assert "ant/kedro.bmp" in set(manifest(copy)["image"])
    draw_image(copy.parent / "images/ant/kedro.bmp", 701)
    before = packed(copy, "ant/kedro.bmp")
    assert call(copy, "kedro", "run", "--pipeline=own", "--tags=fetch,cluster,split").returncode == 0
    assert (packed(copy, "ant/kedro.bmp") != before).any()


def test_images_that_dvc_keeps_are_read_from_the_project(copy):
    (copy.parent / "images").rename(copy / "pictures")
    write_benchmark(copy, Path("pictures"))
    assert call(copy, "dvc", "add", "pictures").returncode == 0
    assert repro(copy)[:2] == ["parameters-own", "fetch-own"]
    shutil.rmtree(copy / "pictures")
    assert call(copy, "dvc", "checkout", "pictures.dvc").returncode == 0
    assert repro(copy) == ["fetch-own"]
    draw_image(copy / "pictures/ant/0.bmp", 998)
    assert repro(copy) == ["fetch-own", "split-own"]


def test_images_that_dvc_imports_follow_their_address(copy):
    shutil.copytree(copy / "pictures", copy.parent / "shelf")
    assert call(copy, "dvc", "import-url", str(copy.parent / "shelf"), "imported").returncode == 0
    write_benchmark(copy, Path("imported"))
    assert "split-own" in repro(copy)
    before = packed(copy, "ant/0.bmp")
    draw_image(copy.parent / "shelf/ant/0.bmp", 997)
    assert call(copy, "dvc", "update", "imported.dvc").returncode == 0
    assert repro(copy) == ["fetch-own", "split-own"]
    assert (packed(copy, "ant/0.bmp") != before).any()


def test_generate_keeps_the_ledger_of_a_users_benchmark_current(copy):
    """Without a name, it looks at every dvc.yaml of pipelines/dvc."""
    path = copy / "conf/base/parameters/own.yml"
    content = yaml.safe_load(path.read_text())
    content["own"]["runs"]["focal"] = {"train": {"method": "focal"}}
    path.write_text(yaml.safe_dump(content))
    done = call(copy, "ltpipe", "generate", "--check")
    assert done.returncode == 2 and "pipelines/dvc/own/dvc.yaml" in done.stderr
    (copy / "docs").mkdir()
    assert call(copy, "ltpipe", "generate").returncode == 0
    assert "train-own-focal-s0" in (copy / "pipelines/dvc/own/dvc.yaml").read_text()
