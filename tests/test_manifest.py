"""The group rule, class names, and the fingerprint of a manifest."""

import numpy as np
import pytest

from ltpipe.config.spec import Refused, parse
from ltpipe.storage.manifest import COLUMNS, GROUPS, ROLES, Groups, class_names, fingerprint


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


@pytest.mark.parametrize(
    ("column", "value"), [("id", "other"), ("label", 9), ("split", "x"), ("group", "few"), ("attribute", 2)]
)
def test_the_fingerprint_changes_with_one_value_of_a_column_that_results_depend_on(manifest, column, value):
    changed = manifest.copy()
    changed.loc[0, column] = value
    assert changed.loc[0, column] != manifest.loc[0, column]
    assert fingerprint(changed) != fingerprint(manifest)


def test_the_fingerprint_separates_columns(manifest):
    moved = manifest.iloc[:2].assign(id=["a", "b"], label=[1, 12])
    assert fingerprint(moved) != fingerprint(moved.assign(label=[11, 2]))


def test_class_names_come_in_numeric_order(manifest):
    rows = manifest.iloc[:11].assign(label=[10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    rows["class_name"] = [f"name{y}" for y in rows["label"]]
    assert class_names(rows) == [f"name{y}" for y in range(11)]
