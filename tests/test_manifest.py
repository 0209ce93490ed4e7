"""The group rule, class names, and the fingerprint of a manifest."""

import tracemalloc

import numpy as np
import pytest

from ltpipe.config.spec import Refused, parse
from ltpipe.storage import manifest as manifest_module
from ltpipe.storage.manifest import (
    COLUMNS,
    GROUPS,
    ROLES,
    Groups,
    class_names,
    data_version,
    digest_images,
    fingerprint,
    role_of,
)


def test_groups_by_count_put_both_limits_into_medium():
    groups = Groups(by="count", many=100, medium=20).of_classes(np.array([101, 100, 99, 21, 20, 19, 0]))
    assert groups.tolist() == ["many", "medium", "medium", "medium", "medium", "few", "few"]


def test_groups_by_rank_count_classes_not_images():
    groups = Groups(by="rank", many=2, medium=1).of_classes(np.array([5, 1000, 7, 6]))
    assert groups.tolist() == ["few", "many", "many", "medium"]


def test_groups_by_rank_of_equal_classes_keep_class_order():
    counts = np.tile([2, 1], 50)
    groups = Groups(by="rank", many=30, medium=30).of_classes(counts)
    assert groups[counts == 2].tolist() == ["many"] * 30 + ["medium"] * 20
    assert groups[counts == 1].tolist() == ["medium"] * 10 + ["few"] * 40


def test_groups_by_rank_are_those_of_imagenet_glt():
    groups = Groups(by="rank", many=400, medium=450).of_classes(np.arange(1000, 0, -1))
    assert [(groups == g).sum() for g in GROUPS] == [400, 450, 150]
    assert groups[[0, 399, 400, 849, 850]].tolist() == ["many", "many", "medium", "medium", "few"]


def test_groups_by_count_refuse_a_medium_above_many():
    with pytest.raises(Refused, match=r"medium <= many, not 30 > 20"):
        parse(Groups, {"by": "count", "many": 20, "medium": 30}, "groups")


def test_groups_know_two_rules_only():
    with pytest.raises(Refused, match="'rank' or 'count'"):
        parse(Groups, {"by": "size", "many": 20, "medium": 30}, "groups")


def test_the_manifest_has_the_stated_columns_roles_and_groups(manifest):
    assert tuple(manifest.columns) == COLUMNS
    assert set(manifest["role"]) == set(ROLES)
    assert set(manifest["group"]) == set(GROUPS)


def test_the_fingerprint_is_16_hex_digits_and_does_not_depend_on_the_order_of_rows(manifest):
    digits = fingerprint(manifest)
    assert len(digits) == 16
    assert int(digits, 16) >= 0
    assert fingerprint(manifest.sample(frac=1, random_state=0)) == digits


OTHER = {"row": 7, "label": 9, "attribute": 2, "group": "few"}


@pytest.mark.parametrize("column", COLUMNS)
def test_the_fingerprint_changes_with_one_value_of_any_column(manifest, column):
    changed = manifest.copy()
    changed.loc[0, column] = OTHER.get(column, "other")
    assert changed.loc[0, column] != manifest.loc[0, column]
    assert fingerprint(changed) != fingerprint(manifest)


def test_the_fingerprint_does_not_see_in_which_folders_a_machine_keeps_the_files(manifest):
    here, there = (manifest.assign(file=folder + manifest["image"] + ".JPEG") for folder in ("val/", "val/n01440764/"))
    assert fingerprint(here) == fingerprint(there)


def test_training_rows_that_point_at_test_pixels_change_the_id(manifest, images):
    """Without a change of id, label, split, group or attribute."""
    spoiled = manifest.copy()
    train, test = (spoiled.index[spoiled["role"] == role][:30] for role in ("train", "test"))
    for columns in (["row"], ["file"], ["source"], ["row", "file", "source", "image"]):
        changed = spoiled.copy()
        changed.loc[train, columns] = changed.loc[test, columns].to_numpy()
        assert data_version(changed, images) != data_version(manifest, images)


def pixels(count=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 40, 3001])
def test_one_changed_byte_of_any_image_changes_the_data_version(manifest, count, monkeypatch):
    """Also of an image between those, at most 1,000, that were hashed once."""
    monkeypatch.setattr(manifest_module, "BLOCK", 6 * 6 * 3 * 7)  # blocks of 7 images, the last one smaller
    images = pixels(count)
    version = data_version(manifest, images)
    for image in {0, 1, 6, 7, count // 2, count - 2, count - 1} & set(range(count)):
        changed = images.copy()
        changed[image, 5, 5, 2] ^= 1
        assert data_version(manifest, changed) != version, image


def test_the_digest_sees_shape_type_and_order(manifest):
    images = pixels()
    others = [images.reshape(40, 3, 6, 6), images.view(np.int8), images[::-1], images[:-1], images[:0]]
    assert len({digest_images(other) for other in [images, *others]}) == 6


def test_the_digest_is_the_same_mapped_in_memory_not_contiguous_and_for_any_number_of_threads(tmp_path, monkeypatch):
    images = pixels()
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    spread = np.repeat(images, 2, axis=0)[::2]
    whole = digest_images(images)
    assert {digest_images(each) for each in (mapped, spread, np.asfortranarray(images))} == {whole}
    monkeypatch.setattr(manifest_module, "BLOCK", 6 * 6 * 3 * 7)
    assert len({digest_images(each, threads) for each in (images, mapped) for threads in (None, 1, 2, 5)}) == 1


def test_a_mapped_array_is_never_held_in_memory_as_a_whole(tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(20_000, 64, 64, 3))
    tracemalloc.start()
    digest_images(mapped[::2])  # not contiguous, so that blocks are copied
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < mapped.nbytes / 2


def test_the_fingerprint_separates_columns(manifest):
    moved = manifest.iloc[:2].assign(id=["a", "b"], label=[1, 12])
    assert fingerprint(moved) != fingerprint(moved.assign(label=[11, 2]))


@pytest.mark.parametrize(
    ("split", "role"),
    [("train", "train"), ("val", "val"), ("test_gbl", "test"), ("train_", "train"), ("trainval", None), ("", None)],
)
def test_the_role_of_a_split_is_the_first_word_of_its_name(split, role):
    assert role_of(split) == role


def test_class_names_come_in_numeric_order(manifest):
    rows = manifest.iloc[:11].assign(label=[10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    rows["class_name"] = [f"name{y}" for y in rows["label"]]
    assert class_names(rows) == [f"name{y}" for y in range(11)]


def test_names_of_attributes_are_part_of_the_fingerprint(manifest):
    named, other = manifest.copy(), manifest.copy()
    named.attrs, other.attrs = {"attributes": [["day"]]}, {"attributes": [["night"]]}
    assert len({fingerprint(manifest), fingerprint(named), fingerprint(other)}) == 3
