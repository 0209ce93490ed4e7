"""Clusters of a class's images: the same for any number of threads, cached by content, and what must be refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ltpipe.data.clusters import Clusters, Features, key, kmeans
from ltpipe.data.fetch import Images, Source
from ltpipe.specs import Refused, parse

SETTINGS = {"count": 3, "restarts": 2, "seed": 25}
IMAGES = Images(Source(name="digits", size=16), Path("no folder"))


@pytest.fixture(scope="module")
def data():
    """8 classes of 60 images, 3 well separated blobs each: features, labels, blob."""
    random = np.random.RandomState(0)
    labels = random.permutation(np.repeat(np.arange(8), 60))
    blobs = random.randint(3, size=480)
    features = (random.randn(480, 5) + 30 * blobs[:, None] + labels[:, None]).astype(np.float32)
    return features, labels, blobs


def index_of(labels, attribute=-1):
    return pd.DataFrame(
        {"label": labels, "attribute": attribute, "official": "train", "file": [f"{i}" for i in labels]}
    )


def test_separated_groups_are_found(data):
    features, labels, blobs = data
    found = kmeans(features, labels, **SETTINGS)
    for label in range(8):
        pairs = set(zip(found[labels == label], blobs[labels == label], strict=True))
        assert len(pairs) == 3


def test_clusters_do_not_depend_on_threads(data):
    features, labels, _ = data
    noise = np.random.RandomState(1).rand(*features.shape).astype(np.float32)
    one, four = (kmeans(noise, labels, **SETTINGS, threads=threads) for threads in (1, 4))
    assert (one == four).all()


def test_a_class_is_clustered_by_itself(data):
    features, labels, _ = data
    alone = labels < 4
    assert (kmeans(features, labels, **SETTINGS)[alone] == kmeans(features[alone], labels[alone], **SETTINGS)).all()


def test_integers_are_clustered_as_numbers(data):
    features, labels, _ = data
    pixels = np.clip(np.rint(features), 0, 255).astype(np.uint8)
    assert (kmeans(pixels, labels, **SETTINGS) == kmeans(pixels.astype(np.float32), labels, **SETTINGS)).all()


def test_identical_images_are_no_error():
    found = kmeans(np.zeros((12, 4), np.float32), np.repeat([0, 1], 6), **SETTINGS)
    assert (found == 0).all()


def test_a_class_with_fewer_images_than_clusters_is_refused(data):
    features, labels, _ = data
    keep = (labels != 2) | (np.cumsum(labels == 2) <= 2)
    with pytest.raises(Refused, match="1 classes are too small for 3 clusters: class 2 has 2 images"):
        kmeans(features[keep], labels[keep], **SETTINGS)


def test_the_key_depends_on_features_labels_and_settings(data):
    features, labels, _ = data
    other = features.copy()
    other[-1, -1] += 1
    keys = [key(features, labels, SETTINGS), key(other, labels, SETTINGS), key(features, labels[::-1], SETTINGS)]
    keys += [key(features, labels, SETTINGS | {"seed": 1}), key(features.astype(np.float64), labels, SETTINGS)]
    assert len(set(keys)) == 5
    assert key(features.copy(), labels.copy(), dict(SETTINGS)) == keys[0]


@pytest.fixture
def stored(data, tmp_path):
    np.save(tmp_path / "features.npy", data[0])
    return tmp_path


def block(folder, **changes):
    features = {"name": "file", "options": {"path": str(folder / "features.npy")}}
    options = {"features": features, "cache": str(folder / "cache"), **SETTINGS}
    return Clusters(**{**options, **changes})


def test_features_from_a_file_are_clustered_once(data, stored, monkeypatch):
    features, labels, _ = data
    rows = np.arange(len(labels))
    first = block(stored).of(index_of(labels), rows, IMAGES)
    assert (first == kmeans(features, labels, **SETTINGS)).all()
    assert len(list((stored / "cache").iterdir())) == 1
    monkeypatch.setattr("ltpipe.data.clusters.kmeans", None)
    assert (block(stored).of(index_of(labels), rows, IMAGES) == first).all()


def test_features_may_be_of_the_whole_index_or_of_its_official_rows(data, stored):
    features, labels, _ = data
    rows = np.arange(0, len(labels), 2)
    whole = block(stored).of(index_of(labels), rows, IMAGES)
    np.save(stored / "features.npy", features[rows])
    assert (block(stored).of(index_of(labels), rows, IMAGES) == whole).all()


def test_features_of_another_number_of_images_are_refused(data, stored):
    features, labels, _ = data
    np.save(stored / "features.npy", features[:100])
    with pytest.raises(
        Refused, match="is 100 x 5, not D numbers for each of the index's 480 rows, nor of the 480 rows"
    ):
        block(stored).of(index_of(labels), np.arange(480), IMAGES)


def test_features_that_are_not_there_are_refused(data, tmp_path):
    with pytest.raises(Refused, match="cannot read the features"):
        block(tmp_path).of(index_of(data[1]), np.arange(480), IMAGES)


def test_the_attribute_of_the_index_may_be_the_cluster(data):
    _, labels, blobs = data
    assert (Clusters(count=3).of(index_of(labels, blobs), np.arange(480), IMAGES) == blobs).all()


def test_an_index_without_attribute_is_refused_with_the_other_ways(data):
    with pytest.raises(Refused, match=r"480 have none .* features may also be pixels, file, torchvision or checkpoint"):
        Clusters(count=3).of(index_of(data[1]), np.arange(480), IMAGES)


def test_features_that_are_no_numbers_are_refused(data):
    features, labels, _ = data
    wrong = features.copy()
    wrong[7, 1] = np.nan
    with pytest.raises(Refused, match="NaN or infinite"):
        kmeans(wrong, labels, **SETTINGS)


def test_pixels_come_from_the_source(index):
    few = index.iloc[:360].reset_index(drop=True).assign(label=0)
    features = {"name": "pixels", "options": {"size": 16}}
    found = Clusters(features=features, count=6, restarts=2, cache=None).of(few, np.arange(360), IMAGES)
    # the schemes differ by far more than the digits: pixels see nothing else
    assert len(set(zip(found, few["attribute"], strict=True))) == 6


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"name": "network"},
            "no 'network' in ltpipe.features; valid names: attribute, checkpoint, file, pixels",
        ),
        ({"name": "pixels", "options": {"sise": 16}}, "unknown key sise; valid keys: size"),
        ({"name": "file", "options": {"path": "features.pt"}}, "a path that ends in .npy, not 'features.pt'"),
        ({"name": "file"}, "path\n  Field required"),
        ({"name": "torchvision", "options": {"resize": 200}}, "crop 256 is larger than resize 200"),
        ({"name": "torchvision", "options": {"std": [1, 1, 0]}}, "std must be positive"),
        ({"name": "torchvision", "options": {"device": "gpu"}}, "'auto', 'cpu' or 'cuda'"),
        ({"name": "checkpoint"}, "path\n  Field required"),
    ],
)
def test_impossible_features_are_refused_before_anything_is_read(features, message):
    with pytest.raises(Refused) as refused:
        parse(Clusters, {"features": features}, "clusters")
    assert message.partition("\n")[0] in refused.value.message


def test_a_module_that_gives_other_rows_than_asked_for_is_an_error(data, monkeypatch):
    monkeypatch.setattr("ltpipe.features.attribute.extract", lambda *_: np.zeros(3))
    with pytest.raises(TypeError, match=r"ltpipe\.features\.attribute\.extract: \(3,\) for 480 images"):
        Features().of(index_of(data[1]), np.arange(480), IMAGES, None)
