"""The ImageNet-GLT construction: exact sizes at ImageNet's scale, balanced tests, and no image in two roles."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ltpipe.benchmark import load
from ltpipe.config.spec import Refused
from ltpipe.data.sampling.class_sizes import encode_runs
from ltpipe.data.split import Split, draw
from ltpipe.data.splits.glt_clusters import divide_by_shares, divide_to_total, merge_clusters

POOL = ["train_glt", "val", "test_glt"]
SMALL = {
    "sizes": "60 50 40 30 20",
    "test_gbl": 3,
    "test_cbl": [7, 2, 1],
    "train_cbl": [14, 4, 2],
    "test_glt": 30,
    "val": 20,
    "groups": {"by": "rank", "many": 2, "medium": 2},
    "seed": 0,
}


def make_index(sizes, shares, seed=0):
    """Return an index with one official split, `train`, and random clusters of probabilities `shares` as attributes."""
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    number = np.concatenate([np.arange(n) for n in sizes])
    image = pd.Series(labels).astype(str).str.zfill(4) + "_" + pd.Series(number).astype(str).str.zfill(5)
    return pd.DataFrame(
        {
            "image": image,
            "source": image,
            "file": "train/" + image.str[:4] + "/" + image + ".JPEG",
            "label": labels,
            "class_name": "n" + image.str[:4],
            "attribute": random.choice(len(shares), len(labels), p=shares),
            "official": "train",
        }
    )


@pytest.fixture(scope="module")
def index():
    return make_index([150, 200, 170, 190, 160], [0.05, 0.3, 0.1, 0.25, 0.1, 0.2])


@pytest.fixture(scope="module")
def manifest(index):
    return draw(index, Split(kind="glt_clusters", options=SMALL))


@pytest.fixture(scope="module")
def imagenet(root):
    """Return the real benchmark and its manifest, for an index with ImageNet's class sizes and random clusters."""
    sizes = np.full(1000, 1300)
    sizes[-104:] -= np.linspace(0, 363, 104).astype(int)
    sizes[-1] = 732
    sizes[-104:-1] += (1_281_167 - sizes.sum()) // 103
    sizes[-2] += 1_281_167 - sizes.sum()
    spec = load(root / "conf/base")["imagenet_glt"]
    options = spec.split.options
    drawn = make_index(sizes, [0.36, 0.26, 0.15, 0.11, 0.07, 0.05])
    return spec, draw(drawn, Split(kind="glt_clusters", options=options))


def counts(manifest, split, classes):
    return np.bincount(manifest.loc[manifest["split"] == split, "label"], minlength=classes)


def test_imagenet_glt_has_the_published_sizes(imagenet):
    sizes = {"train_glt": 113_460, "train_cbl": 114_000, "test_cbl": 60_000, "test_gbl": 60_000, "test_glt": 60_000}
    assert imagenet[1].groupby("split").size().to_dict() == sizes | {"val": 30_000}


def test_imagenet_glt_meets_the_expectations_of_its_benchmark(imagenet):
    from ltpipe.data.checks import rules

    spec, manifest = imagenet
    expect = spec.expect
    assert not rules.class_counts(manifest, expect.plain_counts(), expect.classes)
    assert not rules.attribute_counts(manifest, expect.attribute_counts)
    assert not rules.every_rank(manifest, expect.every_rank, 3)
    assert not rules.disjoint(manifest)
    assert not rules.groups_of(manifest, **expect.groups.model_dump())
    assert manifest.drop_duplicates("label")["group"].value_counts().to_dict() == {
        "many": 400,
        "medium": 450,
        "few": 150,
    }


def test_imagenet_glt_has_the_authors_class_sizes(root):
    sizes = load(root / "conf/base")["imagenet_glt"].split.config().sizes
    assert (len(sizes), sum(sizes), sizes[0], sizes[-1], sizes[399], sizes[849]) == (1000, 214_005, 1500, 18, 181, 46)
    assert (np.diff(sizes) <= 0).all()
    folder = os.environ.get("LTPIPE_OFFICIAL_LISTS", "")
    path = Path(folder) / "long-tail-distribution.pytorch"
    if not folder or not path.exists():
        pytest.skip("LTPIPE_OFFICIAL_LISTS names no folder with long-tail-distribution.pytorch: sums are compared only")
    import torch

    assert sizes == torch.load(path, weights_only=True)


def test_no_image_is_in_two_roles_and_none_twice_in_a_split(manifest):
    assert manifest.groupby("source")["role"].nunique().max() == 1
    assert not manifest["id"].duplicated().any()


def test_classes_are_numbered_by_size(index, manifest):
    names = manifest.drop_duplicates("label").set_index("label")["class_name"]
    assert [names[label] for label in range(5)] == ["n0001", "n0003", "n0002", "n0004", "n0000"]


def test_test_gbl_has_equal_ranks_and_test_cbl_and_train_cbl_have_the_shares(manifest):
    for split, wanted in (("test_gbl", [3, 3, 3]), ("test_cbl", [7, 2, 1]), ("train_cbl", [14, 4, 2])):
        rows = manifest[manifest["split"] == split]
        table = rows.groupby(["label", "attribute"]).size().unstack()
        assert (table.to_numpy() == wanted).all()


def test_ranks_are_pairs_of_clusters_by_size(index, manifest):
    merged = manifest.merge(index[["image", "attribute"]], on="image", suffixes=("", "_cluster"))
    for name, rows in merged.groupby("class_name"):
        order = index.loc[index["class_name"] == name, "attribute"].value_counts()
        place = {cluster: position // 2 for position, cluster in enumerate(order.index)}
        assert (rows["attribute_cluster"].map(place) == rows["attribute"]).all()


def test_a_merged_rank_lists_its_larger_cluster_first_each_in_index_order():
    clusters = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    ranks = merge_clusters(clusters, np.arange(10) + 100, 4, 2)
    assert [rank.tolist() for rank in ranks] == [[106, 107, 108, 109, 103, 104, 105], [101, 102, 100]]


def test_test_gbl_is_taken_from_the_front_of_the_largest_cluster(index, manifest):
    rows = manifest[(manifest["split"] == "test_gbl") & (manifest["label"] == 0) & (manifest["attribute"] == 0)]
    images = index[index["class_name"] == "n0001"]
    largest = images["attribute"].value_counts().index[0]
    assert sorted(rows["image"]) == images.loc[images["attribute"] == largest, "image"].tolist()[:3]


def test_sizes_are_divided_truncated_and_limited_to_what_is_available():
    available = np.array([[100, 100, 100], [5, 5, 0]])
    assert divide_by_shares(np.array([46, 18]), (7, 2, 1), available).tolist() == [[32, 9, 4], [5, 3, 0]]


@pytest.mark.parametrize("total", [1, 40, 62, 70, 150, 300])
def test_the_pool_has_the_stated_total(total):
    available = np.full((3, 3), 100)
    assert divide_to_total(np.array([50, 20, 10]), (7, 2, 1), available, total).sum() == total


def test_a_pool_that_is_too_large_is_cut_in_the_largest_classes():
    table = divide_to_total(np.array([500, 50, 20]), (7, 2, 1), np.full((3, 3), 1000), 200)
    assert table[1:].tolist() == [[35, 10, 5], [14, 4, 2]]


def test_the_authors_sizes_lose_only_truncated_images_if_clusters_are_large_enough(root):
    sizes = np.array(load(root / "conf/base")["imagenet_glt"].split.config().sizes)
    assert divide_by_shares(sizes, (7, 2, 1), np.full((1000, 3), 2000)).sum() == 212_661


def test_the_same_seed_gives_the_same_manifest_and_another_seed_another_val(index, manifest):
    pd.testing.assert_frame_equal(draw(index, Split(kind="glt_clusters", options=SMALL)), manifest)
    other = draw(index, Split(kind="glt_clusters", options=SMALL | {"seed": 1}))
    assert set(other.loc[other["split"] == "test_gbl", "image"]) == set(
        manifest.loc[manifest["split"] == "test_gbl", "image"]
    )
    assert set(other.loc[other["split"] == "val", "image"]) != set(manifest.loc[manifest["split"] == "val", "image"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_cbl": [7, 2, 60]}, "too few images for test_cbl in 5 ranks: class 0 rank 2 has"),
        ({"train_cbl": [14, 4, 60]}, "too few images for train_cbl in 5 ranks"),
        ({"test_glt": 5000}, "test_glt and val want all of the pool"),
        ({"sizes": "60 50"}, "sizes states 2 classes, the index has 5"),
        ({"pool": 10_000}, "no multiple of sizes, divided by shares, gives a pool of 10000 images"),
        ({"official": "val"}, "it has: 'train'"),
    ],
)
def test_a_split_that_cannot_be_drawn_is_refused(index, changes, message):
    with pytest.raises(Refused, match=message):
        draw(index, Split(kind="glt_clusters", options=SMALL | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_cbl": [7, 2]}, "must be equally long"),
        ({"clusters": 5}, "5 clusters cannot be merged evenly into 3 ranks"),
        ({"sizes": "60 5O"}, "not a size, nor size x repeats as in 500x3: 5O"),
    ],
)
def test_an_impossible_block_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Split(kind="glt_clusters", options=SMALL | changes)


def authors_files(folder, index, manifest):
    """Write a manifest in the authors' format, with paths of another machine, and return the option `authors`."""
    names = {"train_glt": "train", "val": "val", "test_glt": "test_lt", "test_cbl": "test_bl", "test_gbl": "test_bbl"}
    content = {}
    for ours, theirs in names.items():
        rows = manifest[manifest["split"] == ours]
        paths = ["/data4/imagenet/" + file for file in rows["file"]]
        content[theirs] = {
            "label": dict(zip(paths, rows["label"].tolist(), strict=True)),
            "attribute": dict(zip(paths, rows["attribute"].tolist(), strict=True)),
        }
    rows = manifest[manifest["split"].isin(["train_cbl", "val"])]
    paths = ["/data4/imagenet/" + file for file in rows["file"]]
    train = {name: dict(zip(paths, rows[name].tolist(), strict=True)) for name in ("label", "attribute")}
    (folder / "lt.json").write_text(json.dumps(content))
    (folder / "bl.json").write_text(json.dumps({"train": train}))
    return {"long_tail": str(folder / "lt.json"), "balanced": str(folder / "bl.json")}


def test_the_authors_files_give_their_splits_image_by_image(tmp_path, index, manifest):
    authors = authors_files(tmp_path, index, manifest)
    read = draw(index, Split(kind="glt_clusters", options=SMALL | {"authors": authors}))
    columns = ["id", "label", "split", "role", "attribute", "group"]
    pd.testing.assert_frame_equal(read[columns], manifest[columns])


def test_a_file_of_another_format_is_refused(tmp_path, index):
    (tmp_path / "lt.json").write_text('{"train": {}}')
    authors = {"long_tail": str(tmp_path / "lt.json"), "balanced": str(tmp_path / "none.json")}
    with pytest.raises(Refused, match="is not a file of the GLT authors"):
        draw(index, Split(kind="glt_clusters", options=SMALL | {"authors": authors}))


def test_sizes_may_be_run_length_coded(index, manifest):
    options = SMALL | {"sizes": encode_runs([60, 50, 40, 30, 20])}
    pd.testing.assert_frame_equal(draw(index, Split(kind="glt_clusters", options=options)), manifest)
