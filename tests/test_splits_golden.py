"""Split kinds give the same rows on every machine (pinned fingerprints), and all of them have one schema."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest

from ltpipe.benchmark import load
from ltpipe.config.spec import load_item
from ltpipe.data import splits as kinds
from ltpipe.data.fetch import fetch
from ltpipe.data.split import Split, draw
from ltpipe.storage.manifest import COLUMNS, GROUPS, ROLES, fingerprint

ROOT = Path(__file__).resolve().parents[1]
COUNT = {"by": "count", "many": 60, "medium": 20}
RANK = {"by": "rank", "many": 2, "medium": 2}
ATTRIBUTES = 21
INTEGERS = ("row", "label", "attribute")


def images(sizes=(200, 190, 170, 160, 150), test=20, seed=7):
    """Return an index: classes mixed in file order, clusters 0..5 as attribute, binary attributes in its attrs."""
    random = np.random.RandomState(seed)
    train = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    labels = np.concatenate([train, np.repeat(np.arange(len(sizes)), test)])
    image = [f"image{i:05d}" for i in range(len(labels))]
    positive = random.rand(len(labels), ATTRIBUTES) < random.dirichlet(np.ones(ATTRIBUTES), len(sizes))[labels] * 4
    index = pd.DataFrame(
        {
            "image": image,
            "source": image,
            "file": [f"{name}.jpg" for name in image],
            "label": labels,
            "class_name": [f"class{label}" for label in labels],
            "attribute": random.choice(6, len(labels), p=[0.05, 0.3, 0.1, 0.25, 0.1, 0.2]),
            "official": np.where(np.arange(len(labels)) < len(train), "train", "test"),
        }
    )
    index.attrs["attribute_names"] = [f"a{i}" for i in range(ATTRIBUTES)]
    index.attrs["attribute_bits"] = base64.b64encode(np.packbits(positive, axis=1).tobytes()).decode()
    return index


def digits():
    """Return the index of the embedded source, which has each image under every value of its attribute."""
    with TemporaryDirectory() as raw:
        return fetch(load(ROOT / "conf/base", ["digits_glt"])["digits_glt"].source, Path(raw))[0]


def tail(shape, val, **more):
    return Split(kind="longtail", options={"profile": shape, "val": val, "groups": COUNT, **more})


REST = {"cut": "rest", "per_class": 10}
EXPONENTIAL = {"shape": "exponential", "largest": 150, "rho": 10}
GLT = {
    "sizes": "60 50 40 30 20",
    "test_gbl": 3,
    "test_cbl": [7, 2, 1],
    "train_cbl": [14, 4, 2],
    "test_glt": 30,
    "val": 20,
    "groups": RANK,
}
COCO = {"test": 10, "test_glt": 40, "val": 20, "largest": 150, "rho": 5, "train_cbl": 40, "groups": RANK}
LISTED = {"train": {"role": "train", "official": "train"}, "test": {"role": "test", "official": "test"}}
# name: index, split, fingerprint of the manifest
CASES = {
    "longtail exponential": (images, tail(EXPONENTIAL, REST), "ca29253c92098d53"),
    "longtail seed 1": (images, tail(EXPONENTIAL, REST, seed=1), "a1269fc757272025"),
    "longtail step": (images, tail({"shape": "step", "largest": 150, "rho": 10}, REST), "74e00c504c567cbf"),
    "longtail pareto": (
        images,
        tail({"shape": "pareto", "largest": 150, "rho": 10, "power": 2}, REST),
        "cfc2c0096db5e2b1",
    ),
    "longtail list": (images, tail({"shape": "list", "sizes": "150 90 40 20 5"}, REST), "78122a307e02ec37"),
    "longtail natural": (
        images,
        tail({"shape": "natural"}, {"cut": "train", "fraction": 0.1}, classes="size"),
        "73c92fb96e8723ef",
    ),
    "glt": (
        digits,
        Split(
            kind="glt",
            options={
                "largest": 100,
                "rho": 10,
                "val": 24,
                "test": 40,
                "shares": [70, 20, 10],
                "groups": RANK,
                "seed": 0,
            },
        ),
        "0a359b0cbea36ef0",
    ),
    "glt_clusters": (images, Split(kind="glt_clusters", options=GLT), "50ab0b492c76e107"),
    "glt_clusters pool": (
        images,
        Split(kind="glt_clusters", options=GLT | {"pool": 230, "seed": 3}),
        "1c293c19f6dcdad4",
    ),
    "coco_glt": (images, Split(kind="coco_glt", options=COCO), "7b435e032df8c3ae"),
    "official_lists": (
        images,
        Split(kind="official_lists", options={"splits": LISTED, "cut": {"per_class": 5}, "groups": COUNT}),
        "87bd3ad5f9d1e69b",
    ),
    "stratified": (images, Split(kind="stratified", options={"groups": COUNT, "official": False}), "513322cae564e84e"),
    "stratified tail": (
        images,
        Split(
            kind="stratified", options={"groups": COUNT, "official": False, "profile": EXPONENTIAL | {"largest": 90}}
        ),
        "1326123da23667a5",
    ),
    "stratified official": (
        images,
        Split(kind="stratified", options={"groups": COUNT, "official": True}),
        "42aa7b2aafb0cb55",
    ),
}


def draw_case(name):
    make, split, _ = CASES[name]
    return draw(make(), split)


@pytest.mark.parametrize("name", CASES)
def test_a_split_has_its_pinned_fingerprint(name):
    assert fingerprint(draw_case(name)) == CASES[name][2]


def test_every_kind_of_split_is_pinned():
    names = {path.stem for path in Path(kinds.__path__[0]).glob("[a-z]*.py")}
    assert names == {split.kind for _, split, _ in CASES.values()}
    assert all(hasattr(load_item("ltpipe.data.splits", name), "draw_manifest") for name in names)


def test_a_split_does_not_depend_on_threads_or_on_hash_order():
    """Draw in another process, because libraries read the number of threads when they are loaded."""
    code = (
        "import json, test_splits_golden as g; from ltpipe.storage.manifest import fingerprint\n"
        "print(json.dumps({name: fingerprint(g.draw_case(name)) for name in g.CASES}))"
    )
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "3")
    environment = os.environ | variables | {"PYTHONHASHSEED": "2", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: pinned for name, (_, _, pinned) in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_split_has_the_schema(name):
    manifest = draw_case(name)
    assert tuple(manifest.columns) == COLUMNS
    assert {column: str(manifest[column].dtype) for column in INTEGERS} == dict.fromkeys(INTEGERS, "int64")
    texts = manifest.drop(columns=list(INTEGERS))
    assert texts.map(lambda value: isinstance(value, str)).all(axis=None)
    assert set(manifest["role"]) <= set(ROLES)
    assert set(manifest["group"]) <= set(GROUPS)
    assert (manifest["id"] == manifest["split"] + "/" + manifest["image"]).all()
    assert manifest.attrs == {}


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("glt ")])
def test_file_names_and_class_names_do_not_change_a_split(name):
    make, split, _ = CASES[name]
    index = make()
    attrs = index.attrs
    other = index.assign(file="elsewhere/" + index["file"], class_name="another " + index["class_name"])
    other.attrs = attrs
    names = ["file", "class_name"]
    assert draw(other, split).drop(columns=names).equals(draw(index, split).drop(columns=names))
