"""The stage `cluster`: the same clusters for any number of threads, the cache, and refused options and data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ltpipe.clustering.cluster import Clusters, cache_key, cached_clusters, cluster
from ltpipe.clustering.kmeans import cluster_classes
from ltpipe.config.spec import Refused, parse
from ltpipe.data.source import Source
from ltpipe.data.split import Split, draw

SETTINGS = {"count": 3, "restarts": 2, "seed": 25}
SOURCE, RAW = Source(name="digits", size=16), Path("no folder")
CELL = "digits_glt.ce.s0"
SPLIT = {
    "clusters": 3,
    "sizes": "10x8",
    "test_gbl": 1,
    "test_cbl": [2, 1, 1],
    "train_cbl": [2, 1, 1],
    "test_glt": 5,
    "val": 5,
    "groups": {"by": "rank", "many": 2, "medium": 2},
}


@pytest.fixture(scope="module")
def data():
    """Return features, labels and blobs of 8 classes with 60 images each, in 3 well separated blobs per class."""
    random = np.random.RandomState(0)
    labels = random.permutation(np.repeat(np.arange(8), 60))
    blobs = random.randint(3, size=480)
    features = (random.randn(480, 5) + 30 * blobs[:, None] + labels[:, None]).astype(np.float32)
    return features, labels, blobs


def make_index(labels, attribute=-1, official="train"):
    names = [f"{number:03d}" for number in range(len(labels))]
    columns = {"image": names, "source": names, "file": names, "label": labels, "class_name": "c"}
    return pd.DataFrame(columns | {"attribute": attribute, "official": official})


def half_official(labels):
    """Return an index whose rows 0, 2, 4, ... are of the official split train, the others of val."""
    return make_index(labels, official=np.where(np.arange(len(labels)) % 2 == 0, "train", "val"))


def test_separated_groups_are_found(data):
    features, labels, blobs = data
    clusters = cluster_classes(features, labels, **SETTINGS)
    for label in range(8):
        pairs = set(zip(clusters[labels == label], blobs[labels == label], strict=True))
        assert len(pairs) == 3


def test_clusters_do_not_depend_on_threads(data):
    features, labels, _ = data
    noise = np.random.RandomState(1).rand(*features.shape).astype(np.float32)
    on_one, on_four = (cluster_classes(noise, labels, **SETTINGS, threads=threads) for threads in (1, 4))
    assert (on_one == on_four).all()


def test_other_classes_do_not_change_the_clusters_of_a_class(data):
    features, labels, _ = data
    few = labels < 4
    clusters = cluster_classes(features, labels, **SETTINGS)
    assert (clusters[few] == cluster_classes(features[few], labels[few], **SETTINGS)).all()


def test_integers_are_clustered_as_numbers(data):
    features, labels, _ = data
    pixels = np.clip(np.rint(features), 0, 255).astype(np.uint8)
    as_numbers = cluster_classes(pixels.astype(np.float32), labels, **SETTINGS)
    assert (cluster_classes(pixels, labels, **SETTINGS) == as_numbers).all()


def test_identical_images_are_no_error():
    clusters = cluster_classes(np.zeros((12, 4), np.float32), np.repeat([0, 1], 6), **SETTINGS)
    assert (clusters == 0).all()


def test_a_class_with_fewer_images_than_clusters_is_refused(data):
    features, labels, _ = data
    keep = (labels != 2) | (np.cumsum(labels == 2) <= 2)
    with pytest.raises(Refused, match="1 classes are too small for 3 clusters: class 2 has 2 images"):
        cluster_classes(features[keep], labels[keep], **SETTINGS)


def test_a_class_without_images_changes_no_other_class(data):
    features, labels, _ = data
    keep = labels != 2
    clusters = cluster_classes(features, labels, **SETTINGS)
    assert (cluster_classes(features[keep], labels[keep], **SETTINGS) == clusters[keep]).all()


def test_nan_features_are_refused(data):
    features, labels, _ = data
    wrong = features.copy()
    wrong[7, 1] = np.nan
    with pytest.raises(Refused, match="NaN or infinite"):
        cluster_classes(wrong, labels, **SETTINGS)


def test_the_cache_key_depends_on_features_labels_and_settings(data):
    features, labels, _ = data
    other = features.copy()
    other[-1, -1] += 1
    keys = [cache_key(features, labels, SETTINGS), cache_key(other, labels, SETTINGS)]
    keys += [cache_key(features, labels[::-1], SETTINGS), cache_key(features, labels, SETTINGS | {"seed": 1})]
    keys += [cache_key(features.astype(np.float64), labels, SETTINGS)]
    assert len(set(keys)) == 5
    assert cache_key(features.copy(), labels.copy(), dict(SETTINGS)) == keys[0]


@pytest.fixture
def stored(data, tmp_path):
    np.save(tmp_path / "features.npy", data[0])
    return tmp_path


def block(folder, **changes):
    features = {"name": "file", "options": {"path": str(folder / "features.npy")}}
    options = {"features": features, "cache": str(folder / "cache"), **SETTINGS}
    return Clusters(**{**options, **changes})


def attribute(index, clusters):
    """Return the attributes that the stage sets, N."""
    return cluster(index, SOURCE, RAW, clusters)["attribute"].to_numpy()


def test_features_from_a_file_are_clustered_once(data, stored, monkeypatch):
    features, labels, _ = data
    first = attribute(make_index(labels), block(stored))
    assert (first == cluster_classes(features, labels, **SETTINGS)).all()
    assert len(list((stored / "cache").iterdir())) == 1
    monkeypatch.setattr("ltpipe.clustering.cluster.cluster_classes", None)
    assert (attribute(make_index(labels), block(stored)) == first).all()
    again = cached_clusters(features, labels, block(stored), stored / "cache")
    assert again.dtype == np.int64 and (again == first).all()


def test_without_a_cache_the_clusters_are_the_same_and_nothing_is_written(data, stored):
    before = sorted(stored.iterdir())
    uncached = attribute(make_index(data[1]), block(stored, cache=None))
    assert sorted(stored.iterdir()) == before
    assert (uncached == attribute(make_index(data[1]), block(stored))).all()


def test_the_stage_sets_the_attribute_of_the_official_rows_and_changes_no_other_column(data, stored):
    features, labels, _ = data
    index = half_official(labels)
    before = index.copy()
    clustered = cluster(index, SOURCE, RAW, block(stored))
    train = (index["official"] == "train").to_numpy()
    assert (clustered.loc[train, "attribute"] == cluster_classes(features[train], labels[train], **SETTINGS)).all()
    assert sorted(clustered.loc[train, "attribute"].unique()) == [0, 1, 2]
    assert (clustered.loc[~train, "attribute"] == -1).all()
    assert clustered["attribute"].dtype == np.int64
    pd.testing.assert_frame_equal(clustered.assign(attribute=-1), before)
    pd.testing.assert_frame_equal(index, before)


def test_an_existing_attribute_is_replaced(data, stored):
    labels = data[1]
    known = half_official(labels).assign(attribute=7)
    assert (attribute(known, block(stored)) == attribute(half_official(labels), block(stored))).all()


def test_the_official_split_is_an_option(data, stored):
    labels = data[1]
    clusters = attribute(half_official(labels), block(stored, official="val"))
    assert (clusters[::2] == -1).all() and sorted(set(clusters[1::2])) == [0, 1, 2]
    with pytest.raises(Refused, match="no image of the official split 'test'; it has: 'train', 'val'"):
        attribute(half_official(labels), block(stored, official="test"))


def test_features_may_be_of_all_index_rows_or_of_the_official_rows(data, stored):
    features, labels, _ = data
    of_index = attribute(half_official(labels), block(stored))
    np.save(stored / "features.npy", features[::2])
    assert (attribute(half_official(labels), block(stored)) == of_index).all()


def test_features_with_another_number_of_rows_are_refused(data, stored):
    features, labels, _ = data
    np.save(stored / "features.npy", features[:100])
    message = "is 100 x 5, not D numbers for each of the 480 rows of the index, nor of the {} rows to be clustered"
    for index, rows in ((make_index(labels), 480), (half_official(labels), 240)):
        with pytest.raises(Refused, match=message.format(rows)):
            attribute(index, block(stored))


def test_a_missing_feature_file_is_refused(data, tmp_path):
    with pytest.raises(Refused, match=r"cannot read .*features\.npy"):
        attribute(make_index(data[1]), block(tmp_path))


def test_pixels_come_from_the_source(index):
    few = index.iloc[:360].reset_index(drop=True).assign(label=0)
    features = {"name": "pixels", "options": {"size": 16}}
    clusters = attribute(few, Clusters(features=features, official="", count=6, restarts=2, cache=None))
    # colour schemes differ by far more than digits do, so each cluster is one scheme
    assert len(set(zip(clusters, few["attribute"], strict=True))) == 6


def test_the_split_needs_no_clusters_if_the_index_has_attributes(data):
    """With as many ranks as attributes, rank r of a class is its r-th most frequent attribute."""
    _, labels, blobs = data
    index = make_index(labels, blobs)
    drawn = draw(index, Split(kind="glt_clusters", options=SPLIT))
    ranks = drawn[["image", "attribute"]].rename(columns={"attribute": "rank"})
    pairs = ranks.merge(index[["image", "label", "attribute"]], on="image")
    for label, rows in pairs.groupby("label"):
        sizes = np.bincount(blobs[labels == label])
        assert set(rows["rank"]) == {0, 1, 2}
        assert (np.argsort(-sizes, kind="stable")[rows["rank"]] == rows["attribute"]).all()


def test_the_split_is_drawn_from_the_clusters_of_its_official_rows(data, stored):
    clustered = cluster(half_official(data[1]), SOURCE, RAW, block(stored))
    drawn = draw(clustered, Split(kind="glt_clusters", options=SPLIT))
    pairs = drawn.merge(clustered[["image", "attribute", "official"]], on="image", suffixes=("", "_cluster"))
    assert len(pairs) == len(drawn) and (pairs["official"] == "train").all()
    assert (pairs.groupby(["label", "attribute"])["attribute_cluster"].nunique() == 1).all()


def test_the_split_refuses_an_index_without_attributes_and_says_how_to_get_them(data):
    message = (
        r"every image needs a cluster of 0\.\.2 \(option clusters\); 480 have none \(image 000: attribute -1\): "
        "add a block cluster to the benchmark, or take a source whose images have attributes"
    )
    with pytest.raises(Refused, match=message):
        draw(make_index(data[1]), Split(kind="glt_clusters", options=SPLIT))


@pytest.mark.parametrize("wrong", [-1, 3])
def test_the_split_refuses_an_attribute_outside_its_clusters(data, wrong):
    _, labels, blobs = data
    index = make_index(labels, blobs)
    index.loc[[5, 9], "attribute"] = wrong
    with pytest.raises(Refused, match=rf"2 have none \(image 005: attribute {wrong}\)"):
        draw(index, Split(kind="glt_clusters", options=SPLIT))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"name": "network"},
            "features.name: no 'network' in ltpipe.features; valid names: checkpoint, file, pixels, torchvision",
        ),
        ({"name": "attribute"}, "no 'attribute' in ltpipe.features; valid names: checkpoint, file, pixels"),
        ({}, "features.name: Field required"),
        ({"name": "pixels", "options": {"sise": 16}}, "unknown key sise; valid keys: size"),
        ({"name": "file", "options": {"path": "features.pt"}}, "a path that ends in .npy, not 'features.pt'"),
        ({"name": "file"}, "features.options.path: Field required"),
        ({"name": "torchvision", "options": {"resize": 200}}, "crop 256 is larger than resize 200"),
        ({"name": "torchvision", "options": {"std": [1, 1, 0]}}, "std must be positive"),
        ({"name": "torchvision", "options": {"device": "gpu"}}, "'auto', 'cpu' or 'cuda'"),
    ],
)
def test_impossible_features_are_refused_before_anything_is_read(features, message):
    with pytest.raises(Refused) as refused:
        parse(Clusters, {"features": features}, "cluster")
    assert message in refused.value.message


def test_the_features_must_be_stated():
    with pytest.raises(Refused, match="features: Field required"):
        parse(Clusters, {"count": 6}, "cluster")


def test_a_checkpoint_is_a_cell_or_a_path():
    assert parse(Clusters, {"features": {"name": "checkpoint"}, "start_from": CELL}, "cluster").start_from == CELL
    path = {"name": "checkpoint", "options": {"path": "x.safetensors"}}
    assert parse(Clusters, {"features": path}, "cluster").start_from is None


@pytest.mark.parametrize(
    "both_or_neither",
    [
        {"features": {"name": "checkpoint", "options": {"path": "x.safetensors"}}, "start_from": CELL},
        {"features": {"name": "checkpoint"}},
        {"features": {"name": "checkpoint", "options": {"path": ""}}, "start_from": None},
    ],
)
def test_not_exactly_one_checkpoint_is_refused(both_or_neither):
    with pytest.raises(Refused, match=r"features checkpoint use one checkpoint: state start_from or options\.path"):
        parse(Clusters, both_or_neither, "cluster")


@pytest.mark.parametrize(
    "features", [{"name": "pixels"}, {"name": "torchvision"}, {"name": "file", "options": {"path": "x.npy"}}]
)
def test_a_checkpoint_for_features_that_use_none_is_refused(features):
    with pytest.raises(Refused, match=f"features {features['name']} use no checkpoint: leave start_from out"):
        parse(Clusters, {"features": features, "start_from": CELL}, "cluster")


@pytest.mark.parametrize("cell", ["", "digits_glt", "digits_glt.ce", "digits_glt.ce.s0.x", "digits_glt..s0", "a.b.s 0"])
def test_a_cell_of_the_wrong_form_is_refused(cell):
    with pytest.raises(Refused) as refused:
        parse(Clusters, {"features": {"name": "checkpoint"}, "start_from": cell}, "cluster")
    assert f"start_from: a cell, <benchmark>.<run>.<seed>, not {cell!r}" in refused.value.message


@pytest.mark.parametrize("shape", [(3, 2), (480,)])
def test_features_of_a_wrong_shape_are_an_error(data, monkeypatch, shape):
    monkeypatch.setattr("ltpipe.features.pixels.extract", lambda *_: np.zeros(shape))
    with pytest.raises(TypeError) as error:
        attribute(make_index(data[1]), Clusters(features={"name": "pixels"}, cache=None))
    assert str(error.value) == f"ltpipe.features.pixels.extract: {shape} for 480 images"


def test_clusters_of_other_code_are_not_taken_from_the_cache(data, monkeypatch):
    features, labels, _ = data
    before = cache_key(features, labels, SETTINGS)
    monkeypatch.setattr("ltpipe.clustering.cluster.code_version", lambda modules: f"another version of {modules}")
    assert cache_key(features, labels, SETTINGS) != before
