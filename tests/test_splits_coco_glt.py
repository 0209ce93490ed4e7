"""MSCOCO-GLT: Test-GBL's greedy choice equals brute force, splits have the stated sizes, roles share no photograph."""

import base64

import numpy as np
import pandas as pd
import pytest

from ltpipe.config.spec import Refused
from ltpipe.data.split import Split, draw
from ltpipe.data.splits.coco_glt import choose_balanced, typicality_thirds, unpack_attributes

SMALL = {
    "test": 10,
    "test_glt": 40,
    "val": 20,
    "largest": 200,
    "rho": 5,
    "train_cbl": 40,
    "groups": {"by": "rank", "many": 1, "medium": 1},
    "seed": 0,
}


def make_index(sizes=(300, 200, 150), attributes=21, photos=None, seed=0):
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rates = random.dirichlet(np.ones(attributes), len(sizes)) * 4
    positive = random.rand(len(labels), attributes) < rates[labels]
    image = [f"patch{i:04d}" for i in range(len(labels))]
    index = pd.DataFrame(
        {
            "image": image,
            "source": image if photos is None else [f"photo{i}" for i in random.randint(photos, size=len(labels))],
            "file": [str(i) for i in range(len(labels))],
            "label": labels,
            "class_name": [f"class{label}" for label in labels],
            "attribute": -1,
            "official": "train",
        }
    )
    index.attrs = {
        "attribute_names": [f"a{i}" for i in range(attributes)],
        "attribute_bits": base64.b64encode(np.packbits(positive, axis=1).tobytes()).decode(),
    }
    return index


@pytest.fixture(scope="module")
def index():
    return make_index()


@pytest.fixture(scope="module")
def manifest(index):
    return draw(index, Split(kind="coco_glt", options=SMALL))


def test_the_greedy_choice_equals_brute_force(index):
    attributes = unpack_attributes(index)[:300]
    histogram, left, wanted = np.zeros(attributes.shape[1]), list(np.flatnonzero(attributes.sum(axis=1))), []
    for _ in range(25):
        spreads = [np.std((histogram + attributes[row]) / (histogram + attributes[row]).sum()) for row in left]
        best = left.pop(int(np.argmin(np.round(spreads, 12))))
        histogram += attributes[best]
        wanted.append(best)
    assert choose_balanced(attributes, 25).tolist() == wanted


def test_test_gbl_has_more_even_attributes_than_test_cbl(index, manifest):
    attributes = unpack_attributes(index)

    def spread(split, label):
        rows = manifest[(manifest["split"] == split) & (manifest["label"] == label)]["file"].astype(int)
        histogram = attributes[rows].sum(axis=0)
        return np.std(histogram / histogram.sum())

    assert all(spread("test_gbl", label) < spread("test_cbl", label) for label in range(3))


def test_splits_have_the_stated_sizes(manifest):
    sizes = manifest.groupby("split").size().to_dict()
    assert {name: sizes[name] for name in ("test_gbl", "test_cbl", "test_glt", "val", "train_cbl")} == {
        "test_gbl": 30,
        "test_cbl": 30,
        "test_glt": 40,
        "val": 20,
        "train_cbl": 120,
    }
    assert sizes["train_glt"] == 200 + 89 + 40 - 60
    pool = manifest[manifest["split"].isin(["train_glt", "val", "test_glt"])]
    assert pool.groupby("label").size().tolist() == [200, 89, 40]


def test_exponential_sizes_end_at_the_published_smallest_class():
    from ltpipe.data.sampling.class_sizes import exponential_sizes

    sizes = exponential_sizes(64_600, 200, 29)
    assert (sizes[0], sizes[-1]) == (64_600, 323)


def test_no_image_is_in_two_roles(manifest):
    assert manifest.groupby("image")["role"].nunique().max() == 1


def test_no_photograph_is_in_two_roles():
    index = make_index(photos=150)
    manifest = draw(index, Split(kind="coco_glt", options=SMALL | {"train_cbl": 2, "test_glt": 10, "val": 5}))
    roles = manifest[manifest["split"].isin(["train_glt", "val", "train_cbl"])].groupby("source")["role"].nunique()
    tests = set(manifest.loc[manifest["role"] == "test", "source"])
    assert roles.max() == 1
    assert not tests & set(manifest.loc[manifest["role"] != "test", "source"])


def test_thirds_are_equally_large_and_begin_with_the_most_typical():
    attributes = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=np.float32)
    assert typicality_thirds(attributes).tolist() == [1, 1, 0, 0, 2, 2]


def test_classes_of_the_index_are_renumbered_by_size():
    manifest = draw(make_index(sizes=(150, 300, 200)), Split(kind="coco_glt", options=SMALL))
    names = manifest.drop_duplicates("label").set_index("label")["class_name"]
    assert [names[label] for label in range(3)] == ["class1", "class2", "class0"]


def test_the_manifest_has_no_attribute_vectors(manifest):
    assert manifest.attrs == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": 80}, "160 patches of each class are wanted for test_gbl and test_cbl: class 2 has 150"),
        ({"train_cbl": 140}, "140 patches of each class are wanted for train_cbl: class 2 has"),
        ({"test_glt": 400}, "want all of the pool's 329 patches"),
    ],
)
def test_a_split_that_cannot_be_drawn_is_refused(index, changes, message):
    with pytest.raises(Refused, match=message):
        draw(index, Split(kind="coco_glt", options=SMALL | changes))


def test_an_index_without_attributes_is_refused(index):
    bare = index.copy()
    bare.attrs = {}
    with pytest.raises(Refused, match="has no attribute_bits; source: mscoco_glt provides them"):
        draw(bare, Split(kind="coco_glt", options=SMALL))


def test_attribute_bits_for_another_number_of_rows_are_refused(index):
    short = index.iloc[:600].copy()
    short.attrs = index.attrs
    with pytest.raises(Refused, match="1950 bytes of attribute_bits for 600 rows of 21 attributes"):
        unpack_attributes(short)
