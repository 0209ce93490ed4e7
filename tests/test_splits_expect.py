"""How a benchmark states class sizes (a list, run lengths or a summary), and the errors of wrong statements."""

import pandas as pd
import pytest

from ltpipe.config.spec import Refused, parse
from ltpipe.data.checks import rules
from ltpipe.data.checks.validate import Expect

GROUPS = {"by": "count", "many": 3, "medium": 2, "split": "train"}


def block(counts, classes=3, **changes):
    return {"classes": classes, "class_counts": {"train": counts}, "groups": GROUPS} | changes


def test_run_lengths_equal_the_list_that_they_code():
    assert parse(Expect, block("5x2 1"), "e") == parse(Expect, block([5, 5, 1]), "e")


def test_a_summary_holds_only_the_stated_values():
    expect = parse(Expect, block({"total": 11, "largest": 5}), "e")
    assert expect.plain_counts() == {"train": {"total": 11, "largest": 5}}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("5x2", r"class_counts must state 3 classes \(classes\): train has 2"),
        ("5x2 one", "class_counts.train.*not a size, nor size x repeats as in 500x3: one"),
        ([5, 5, -1], "greater than or equal to 0"),
        ({}, "state at least one of total, classes, largest, smallest"),
        ({"sum": 3}, "unknown key sum; valid keys: total, classes, largest, smallest"),
        (5, "should be a valid list"),
    ],
)
def test_wrong_counts_are_refused(counts, message):
    with pytest.raises(Refused, match=message):
        parse(Expect, block(counts), "e")


@pytest.mark.parametrize(
    "changes",
    [{"groups": {**GROUPS, "split": ["train", "x"]}}, {"every_rank": ["x"]}, {"attribute_counts": {"x": [1]}}],
)
def test_a_split_without_class_counts_is_refused(changes):
    with pytest.raises(Refused, match="splits that class_counts does not state: x"):
        parse(Expect, block([5, 5, 1], **changes), "e")


@pytest.fixture
def rows():
    names = ["cat", "cat", "cat", "1", "1", "dog"]
    labels = [0, 0, 0, 1, 1, 2]
    return pd.DataFrame({"split": ["a"] * 4 + ["b"] * 2, "label": labels, "class_name": names, "id": list("uvwxyz")})


def test_a_violation_names_the_class_where_its_name_is_not_its_number(rows):
    assert rules.class_counts(rows, {"a": [2, 2, 0]}, 3) == [
        "a class 0 (cat): 3 images, not 2",
        "a class 1: 1 images, not 2",
    ]
    ranked = rows.assign(attribute=0)
    assert "b class 2 (dog) has no image of rank 1" in rules.every_rank(ranked, ["b"], 2)


def test_a_correct_summary_gives_no_violation(rows):
    wanted = {"a": {"total": 4, "classes": 2, "largest": 3, "smallest": 0}, "b": [0, 1, 1]}
    assert rules.class_counts(rows, wanted, 3) == []


def test_each_wrong_number_of_a_summary_is_a_violation(rows):
    violations = rules.class_counts(rows, {"a": {"total": 5, "classes": 3, "largest": 2, "smallest": 1}}, 3)
    assert violations == ["a total: 4, not 5", "a classes: 2, not 3", "a largest: 3, not 2", "a smallest: 0, not 1"]


def test_groups_may_follow_the_class_sizes_of_several_splits_together(rows):
    table = rows.assign(group=["many", "many", "many", "medium", "medium", "few"])
    assert rules.groups_of(table, ["a", "b"], "count", 2, 2) == []
    assert len(rules.groups_of(table, "a", "count", 2, 2)) == 2
