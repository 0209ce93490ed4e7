"""iNaturalist 2018 and Places-LT: official lists over a local folder."""

import subprocess
import sys

import pytest
from PIL import Image
from test_lists import put

from ltpipe.config.spec import Refused
from ltpipe.data.checks.rules import files_exist
from ltpipe.data.fetch import COLUMNS, fetch
from ltpipe.data.pack import pack
from ltpipe.data.source import Source
from ltpipe.data.sources import inaturalist2018, places365
from ltpipe.data.split import Split, draw
from ltpipe.storage.manifest import class_names

TEXTS = {
    "inaturalist2018": {
        "train": "train_val2018/Aves/1/b.jpg 1\ntrain_val2018/Plantae/0/a.jpg 0\n",
        "val": "train_val2018/Plantae/0/c.jpg 0\ntrain_val2018/Aves/1/d.jpg 1\n",
    },
    "places365": {
        "train": "train/airfield/00000001.jpg 0\ntrain/alley-outdoor/00000001.jpg 1\n",
        "val": "train/airfield/00000002.jpg 0\ntrain/alley-outdoor/00000002.jpg 1\n",
        "test": "val/airfield/Places365_val_00000001.jpg 0\nval/alley-outdoor/Places365_val_00000002.jpg 1\n",
    },
}
MODULES = {"inaturalist2018": inaturalist2018, "places365": places365}


@pytest.fixture(params=sorted(TEXTS))
def name(request, monkeypatch, tmp_path):
    module = MODULES[request.param]
    monkeypatch.delenv(module.DATASET.variable, raising=False)
    monkeypatch.setattr(module, "CLASSES", 2)
    monkeypatch.setattr(module, "LISTS", put(tmp_path / "raw", TEXTS[request.param]))
    return request.param


@pytest.fixture
def root(name, tmp_path):
    for text in TEXTS[name].values():
        for line in text.splitlines():
            path = tmp_path / "data" / line.split()[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (5, 6, 7)).save(path)
    return tmp_path / "data"


def test_the_index_follows_the_lists(name, root, tmp_path):
    source = Source(name=name, size=16, options={"root": str(root)})
    index = fetch(source, tmp_path / "raw")[0]
    texts = TEXTS[name]
    assert tuple(index.columns) == COLUMNS
    assert index["official"].tolist() == [split for split in texts for _ in range(2)]
    lines = [line.split() for text in texts.values() for line in text.splitlines()]
    assert index["file"].tolist() == [file for file, _ in lines]
    assert index["label"].tolist() == [int(label) for _, label in lines]
    assert index["image"].is_unique
    names = index.groupby("label")["class_name"].unique().map(list).tolist()
    assert (
        names == {"inaturalist2018": [["Plantae 0"], ["Aves 1"]], "places365": [["airfield"], ["alley-outdoor"]]}[name]
    )
    assert files_exist(index, str(tmp_path / "raw")) == []
    assert pack(index.assign(row=range(len(index))), source, tmp_path / "raw").shape == (len(index), 16, 16, 3)


FOLDERS = {"inaturalist2018": "train_val2018/Aves/{}/{}.jpg", "places365": "train/scene{}/{}.jpg"}


@pytest.mark.parametrize("kind", ["official_lists", "longtail"])
def test_classes_are_in_the_order_of_numbers_and_not_of_text(name, kind, tmp_path, monkeypatch):
    """Twelve classes, class c with 30 - c training images: as text 10 and 11 would come before 2."""
    module, pattern = MODULES[name], FOLDERS[name]
    lines = {split: [] for split in module.LISTS}
    for label in reversed(range(12)):
        for split in lines:
            for k in range(30 - label if split == "train" else 2):
                lines[split].append(f"{pattern.format(label, f'{split}{k}')} {label}")
    texts = {split: "\n".join(entries) for split, entries in lines.items()}
    monkeypatch.setattr(module, "CLASSES", 12)
    monkeypatch.setattr(module, "LISTS", put(tmp_path / "raw", texts))
    for line in (line for entries in lines.values() for line in entries):
        path = tmp_path / "data" / line.split()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("an image")
    for entry in module.DATASET.entries:
        (tmp_path / "data" / entry).mkdir(exist_ok=True)
    source, raw = Source(name=name, size=16, options={"root": str(tmp_path / "data")}), tmp_path / "raw"
    index = fetch(source, raw)[0]
    groups = {"by": "rank", "many": 3, "medium": 3}
    options = {
        "official_lists": {
            "splits": {"train": {"role": "train", "official": "train"}, "test": {"role": "test", "official": "val"}},
        },
        "longtail": {"profile": {"shape": "natural"}, "val": {"cut": "train", "per_class": 1}, "test": "val"},
    }[kind]
    manifest = draw(index, Split(kind=kind, options=options | {"groups": groups}))
    sizes = manifest[manifest["split"] == "train"].groupby("label").size().tolist()
    assert sizes == [30 - label - (kind == "longtail") for label in range(12)]
    folder = pattern.split("/")[-2]
    assert class_names(manifest) == [
        ("Aves " if name == "inaturalist2018" else "") + folder.format(label) for label in range(12)
    ]
    group = manifest.drop_duplicates("label").set_index("label")["group"].sort_index().tolist()
    assert group == ["many"] * 3 + ["medium"] * 3 + ["few"] * 6


def test_without_a_folder_the_message_says_what_to_get(name, tmp_path):
    with pytest.raises(Refused) as caught:
        fetch(Source(name=name, size=16), tmp_path / "raw")
    dataset = MODULES[name].DATASET
    for part in ("GB", "https://" if name == "inaturalist2018" else "http://", "terms: ", "layout: ", dataset.variable):
        assert part in caught.value.message
    assert f"-v /path:/app/data/01_raw/{name}" in caught.value.message


def test_the_sources_load_nothing_heavy_before_they_are_used():
    code = (
        "import pkgutil, sys\nfrom importlib import import_module\nimport ltpipe.data.sources as sources\n"
        "names = [m.name for m in pkgutil.iter_modules(sources.__path__)]\n"
        "[import_module(f'ltpipe.data.sources.{name}') for name in names]\n"
        "heavy = {'pandas', 'PIL', 'sklearn', 'scipy', 'requests', 'pooch', 'filelock', 'torch', 'kedro', 'joblib'}\n"
        "assert len(names) >= 9, names\nassert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_missing_image_is_named(name, root, tmp_path):
    file = TEXTS[name]["val"].split()[0]
    (root / file).unlink()
    with pytest.raises(Refused, match=f"source {name}: 1 of .* listed files are not in .*: {file}"):
        fetch(Source(name=name, size=16, options={"root": str(root)}), tmp_path / "raw")
