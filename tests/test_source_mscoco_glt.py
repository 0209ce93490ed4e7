"""MSCOCO-GLT: patches from miniature COCO annotations, and a joblib file that is read without running its pickle."""

import base64
import hashlib
import json
import os
import pickle
import shutil
import zipfile
import zlib

import joblib
import numpy as np
import pytest
from PIL import Image

from ltpipe.config.spec import Refused
from ltpipe.data.acquire import joblib_reader
from ltpipe.data.fetch import COLUMNS, fetch
from ltpipe.data.pack import pack
from ltpipe.data.source import Source
from ltpipe.data.sources import mscoco_glt
from ltpipe.data.sources.mscoco_glt import cut_patch, enlarge_box

CATEGORIES = [{"id": 7, "name": "zebra"}, {"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}]
# annotation: photograph, category, box; 50 is not described by COCO Attributes
OBJECTS = {
    "train2014": {10: (1, 3, [20.0, 20.0, 30.0, 10.0]), 11: (1, 9, [0.0, 0.0, 40.5, 200.0]), 50: (1, 9, [0, 0, 1, 1])},
    "val2014": {12: (2, 7, [250.0, 100.0, 50.0, 50.0]), 13: (2, 9, [100.0, 50.0, 150.0, 120.0])},
}
PATCHES = {4: 13, 2: 11, 30: 10, 1: 12}
VECTORS = {key: np.linspace(0, 1, 204) > (i + 1) / 5 for i, key in enumerate(PATCHES)}


@pytest.fixture
def content():
    return {
        "ann_vecs": {key: vector.astype(np.float64) for key, vector in VECTORS.items()},
        "patch_id_to_ann_id": dict(PATCHES),
        "attributes": [{"id": i, "name": f"attribute {i}"} for i in reversed(range(204))],
        "split": dict.fromkeys(PATCHES, "train2014"),
    }


def put_attributes(raw, content, monkeypatch):
    raw.mkdir(exist_ok=True)
    path = raw / mscoco_glt.ATTRIBUTES.name
    joblib.dump(content, path, compress=True)
    data = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    monkeypatch.setattr(mscoco_glt, "ATTRIBUTES", mscoco_glt.ATTRIBUTES._replace(checksum=f"git:{blob}"))


@pytest.fixture
def raw(tmp_path, content, monkeypatch):
    monkeypatch.delenv("LTPIPE_COCO2014", raising=False)
    put_attributes(tmp_path / "raw", content, monkeypatch)
    return tmp_path / "raw"


@pytest.fixture
def root(tmp_path):
    """Write photographs of 300 x 200 in which red grows to the right and green downwards."""
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    across, down = np.meshgrid(np.linspace(50, 250, 300), np.linspace(50, 250, 200))
    photo = Image.fromarray(np.stack([across, down, across * 0 + 60], axis=2).astype(np.uint8))
    for part, objects in OBJECTS.items():
        (folder / part).mkdir()
        numbers = {image for image, _, _ in objects.values()}
        images = [{"id": n, "file_name": f"COCO_{part}_{n:012d}.jpg"} for n in numbers]
        for image in images:
            photo.save(folder / part / image["file_name"], quality=97)
        notes = [{"id": i, "image_id": n, "category_id": c, "bbox": box} for i, (n, c, box) in objects.items()]
        whole = {"images": images, "annotations": notes, "categories": CATEGORIES}
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(whole))
    return folder


def source(root, size=32, **options):
    return Source(name="mscoco_glt", size=size, options={"root": str(root)} | options)


def test_the_index_has_a_row_for_each_described_object(root, raw):
    index = fetch(source(root), raw)[0]
    assert tuple(index.columns) == COLUMNS
    assert index["image"].tolist() == ["patch000001", "patch000002", "patch000004", "patch000030"]
    assert index["class_name"].tolist() == ["zebra", "dog", "dog", "cat"]
    assert index["label"].tolist() == [2, 0, 0, 1]  # dog is the largest, cat before zebra by name
    assert index["official"].tolist() == ["val", "train", "val", "train"]
    assert index["file"].tolist() == ["0", "1", "2", "3"]
    photos = ["COCO_val2014_000000000002", "COCO_train2014_000000000001"]
    assert index["source"].tolist() == [photos[0], photos[1], photos[0], photos[1]]
    assert fetch(source(root, source="patch"), raw)[0]["source"].equals(index["image"].rename("source"))


def test_the_attributes_survive_as_bits(root, raw):
    attrs = fetch(source(root), raw)[0].attrs
    bits = np.frombuffer(base64.b64decode(attrs["attribute_bits"]), np.uint8).reshape(4, -1)
    positive = np.unpackbits(bits, axis=1)[:, :204].astype(bool)
    assert (positive == [VECTORS[key] for key in sorted(VECTORS)]).all()
    assert attrs["attribute_names"][:2] == ["attribute 0", "attribute 1"]
    json.dumps(attrs)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((100, 60, 30, 40), (50, 10, 180, 150)),  # sides below 100: 50 more on each side
        ((100, 60, 150, 120), (70, 36, 280, 204)),  # else 20 % of the side
        ((100, 60, 99.9, 100), (50, 40, 249.9, 180)),
        ((10, 10, 30, 150), (0, 0, 90, 190)),  # clipped at the left and the top
        ((280, 190, 100, 30), (260, 140, 300, 210)),  # and at the right and the bottom
    ],
)
def test_boxes_are_enlarged_and_clipped(box, expected):
    assert enlarge_box(box, 300, 210) == pytest.approx(expected)


@pytest.mark.parametrize("box", [(0, 0, 300, 20), (140, 0, 10, 200), (100, 60, 40, 40)])
def test_a_patch_is_a_square_padded_with_black(box):
    patch = cut_patch(Image.new("RGB", (300, 200), (200, 200, 200)), box)
    left, top, right, bottom = enlarge_box(box, 300, 200)
    assert patch.size == (max(right - left, bottom - top),) * 2
    grey = (np.asarray(patch)[..., 0] == 200).sum()
    assert grey == (right - left) * (bottom - top)
    assert np.asarray(patch)[patch.height // 2, patch.width // 2].tolist() == [200] * 3


def test_the_pixels_are_those_of_the_patch(root, raw):
    index = fetch(source(root), raw)[0]
    images = pack(index.assign(row=range(4)), source(root, 40), raw).astype(float)
    centre = images[0, 20, 20]  # patch 1: box (250, 100, 50, 50) becomes 200..300 x 50..200, padded to 150 x 150
    assert np.abs(centre[:2] - [50 + 200 * 250 / 299, 50 + 200 * 125 / 199]).max() < 6
    assert images[0, 20, :5].max() < 12
    assert images[0, 20, -5:].max() < 12
    assert images[3].min(axis=2).max() > 40
    some = index.iloc[[2, 0]].assign(row=[0, 1])
    assert (pack(some, source(root, 40), raw) == images[[2, 0]]).all()


def test_patches_cannot_be_read_before_they_are_fetched(root, tmp_path):
    with pytest.raises(Refused, match="fetch the source again"):
        mscoco_glt.read_images(mscoco_glt.Config(), tmp_path, ["0"], 32)


@pytest.mark.parametrize("spoil", ["annotation", "file", "photograph", "key"])
def test_what_is_missing_is_named(spoil, root, raw, content, monkeypatch):
    if spoil == "annotation":
        put_attributes(raw, content | {"patch_id_to_ann_id": PATCHES | {4: 999}}, monkeypatch)
    elif spoil == "file":
        (root / "annotations/instances_val2014.json").unlink()
    elif spoil == "photograph":
        (root / "train2014/COCO_train2014_000000000001.jpg").unlink()
    else:
        put_attributes(raw, {"ann_vecs": content["ann_vecs"], "attributes": []}, monkeypatch)
    expected = {
        "annotation": "1 described objects are not in .* annotation 999",
        "file": r"no instances_val2014\.json in",
        "photograph": r"1 of 2 listed files are not in .*: train2014/COCO_train2014_000000000001\.jpg",
        "key": r"cocottributes_py3\.jbl lacks patch_id_to_ann_id",
    }[spoil]
    with pytest.raises(Refused, match=expected):
        fetch(source(root), raw)


def test_without_a_folder_the_message_says_what_to_get(raw):
    with pytest.raises(Refused, match=r"(?s)no train2014 and no val2014 in .*13\.5 GB.*6\.6 GB.*LTPIPE_COCO2014"):
        fetch(Source(name="mscoco_glt", size=32), raw)


def test_the_annotations_are_fetched_if_the_folder_has_none(root, raw, tmp_path, monkeypatch):
    expected = fetch(source(root), raw)[0]
    (raw / "annotations").unlink()
    archive = raw / "annotations_trainval2014.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted((root / "annotations").iterdir()):
            opened.write(path, f"annotations/{path.name}")
    shutil.rmtree(root / "annotations")
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    here = mscoco_glt.ANNOTATIONS._replace(checksum=f"sha256:{sha256}", size=None)
    monkeypatch.setattr(mscoco_glt, "ANNOTATIONS", here)
    assert fetch(source(root), raw)[0].equals(expected)
    assert not (raw / "annotations").is_symlink()
    archive.unlink()
    assert fetch(source(root), raw)[0].equals(expected)


def test_the_official_annotations_are_named_with_their_checksum():
    remote = mscoco_glt.ANNOTATIONS
    assert remote.url == "http://images.cocodataset.org/annotations/annotations_trainval2014.zip"
    assert remote.checksum == "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"
    assert remote.size == 252_872_794


def test_a_truncated_photograph_is_named_when_it_is_packed(root, raw):
    index = fetch(source(root), raw)[0]
    photo = root / "val2014/COCO_val2014_000000000002.jpg"
    photo.write_bytes(photo.read_bytes()[:2000])
    with pytest.raises(Refused, match=r"cannot decode .*COCO_val2014_000000000002\.jpg: .*truncated"):
        pack(index.assign(row=range(4)), source(root, 40), raw)


VALUES = {
    "numbers": {1: 2.5, "x": [1, (2, None, True)], 3: {4}, "big": 2**70, "bytes": b"x"},
    "arrays": [np.arange(6.0), np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(3), np.zeros((0, 4), np.int8)],
    "scalars": [np.float64(2.5), np.int32(-3)],
    "text": np.array(["a", "bcd"]),
}


@pytest.mark.parametrize("compress", [0, True, ("gzip", 3)])
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_joblib_file_of_arrays_is_read_as_joblib_does(name, protocol, compress, tmp_path):
    joblib.dump(VALUES[name], tmp_path / "x.jbl", compress=compress, protocol=protocol)
    np.testing.assert_equal(joblib_reader.load_joblib(tmp_path / "x.jbl"), joblib.load(tmp_path / "x.jbl"))


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_calls_something_is_refused_and_nothing_is_called(nested, protocol, tmp_path):
    attack = Attack(str(tmp_path / "called"))
    joblib.dump({"a": np.arange(3), "b": [attack]} if nested else attack, tmp_path / "x.jbl", protocol=protocol)
    with pytest.raises(Refused, match=r"it uses the name (posix\.mkdir|copy_reg\._reconstructor)"):
        joblib_reader.load_joblib(tmp_path / "x.jbl")
    assert not (tmp_path / "called").exists()


def test_an_array_of_objects_is_refused_and_nothing_is_called(tmp_path):
    attack = np.array([Attack(str(tmp_path / "called")), None], dtype=object)
    joblib.dump(attack, tmp_path / "x.jbl")
    with pytest.raises(Refused, match="array of Python objects"):
        joblib_reader.load_joblib(tmp_path / "x.jbl")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>not found</html>",
        b"\x78\x01junk",
        b"\x1f\x8bjunk",
        pickle.dumps(np.arange(3)),
        pickle.dumps(np.dtype(">i4")),
        pickle.dumps(print),
        zlib.compress(pickle.dumps([1, 2]))[:-6],
    ],
)
def test_anything_else_is_refused(data, tmp_path):
    (tmp_path / "x.jbl").write_bytes(data)
    with pytest.raises(Refused, match="is not a joblib file of arrays and containers"):
        joblib_reader.load_joblib(tmp_path / "x.jbl")


def test_a_truncated_file_is_refused(tmp_path):
    joblib.dump({"a": np.arange(1000)}, tmp_path / "x.jbl")
    data = (tmp_path / "x.jbl").read_bytes()
    for end in range(10, len(data) - 1, 97):
        (tmp_path / "x.jbl").write_bytes(data[:end])
        with pytest.raises(Refused):
            joblib_reader.load_joblib(tmp_path / "x.jbl")
