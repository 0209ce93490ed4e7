"""Every expectation fails on the corruption that it is for and says why, and a refused manifest is not written."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner

from ltpipe.config.spec import Refused, parse
from ltpipe.data.checks import rules
from ltpipe.data.checks.validate import EXAMPLES, Expect, build_suite, validate
from ltpipe.data.split import admit
from ltpipe.storage.datasets import Array, Json, Parquet
from ltpipe.storage.manifest import COLUMNS
from pipelines import split as split_stage

NOT_NULL = "expect_column_values_to_not_be_null"
UNIQUE = "expect_column_values_to_be_unique"
IN_SET = "expect_column_values_to_be_in_set"
BETWEEN = "expect_column_values_to_be_between"
COLUMN_LIST = "expect_table_columns_to_match_ordered_list"
CLASSES = "expect_class_counts_to_equal"
ATTRIBUTES = "expect_attribute_counts_to_equal"
EVERY_CLASS = "expect_every_class_to_have_an_image"
RANKS = "expect_every_rank_in_every_class"
DISJOINT = "expect_roles_to_be_disjoint_by_source"
GROUPS = "expect_groups_to_follow_rule"
ONE_NAME = "expect_one_name_per_label"
FILES = "expect_files_to_exist"
ONE_ROLE = "expect_one_role_per_split"
ONE_ROW = "expect_one_row_per_image"


class Corruption(NamedTuple):
    """A way to corrupt a manifest. fails: the expectation under test; also: others that fail too, unavoidably."""

    title: str
    fails: str
    corrupt: Callable[[pd.DataFrame], pd.DataFrame]
    also: tuple[str, ...] = ()
    violations: int = 1


def first(table, **values):
    """Return the index label of the first row with these values."""
    rows = table
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows.index[0]


def put(column, value, **where):
    """Return a function that sets `column` in the first row with the values `where`."""

    def corrupt(table):
        table.loc[first(table, **where), column] = value
        return table

    return corrupt


def everywhere(column, value, **where):
    """Return a function that sets `column` in every row with the value `where`."""

    def corrupt(table):
        (key, wanted), *_ = where.items()
        table.loc[table[key] == wanted, column] = value
        return table

    return corrupt


def duplicate_id(table):
    table.loc[1, "id"] = table.loc[0, "id"]
    return table


def row_too_large(table):
    return put("row", table["image"].nunique(), split="val")(table)


def unknown_split(table):
    extra = table.loc[[first(table, split="test_gbl")]].assign(split="test_new", id="test_new/1")
    return pd.concat([table, extra], ignore_index=True)


def one_image_less(table):
    return table.drop(index=first(table, split="test_gbl", attribute=0))


def leak(table):
    """Give a val row the source of a training row."""
    source = table.loc[first(table, split="train_glt"), "source"]
    return put("source", source, split="val")(table)


def another_image(table):
    """Give an image of Test-CBL, which Test-GBL has too, the array row of another image."""
    a, b = table.index[table["split"] == "test_cbl"][:2]
    table.loc[a, "row"] = table.loc[b, "row"]
    return table


def split_of_two_roles(table):
    """Give a val row the role train."""
    return put("role", "train", split="val")(table)


def empty_rank(table):
    """Exchange ranks between two classes, so that the rarest class lacks rank 2, but all counts stay."""
    rare = first(table, split="train_glt", label=9, attribute=2)
    common = first(table, split="train_glt", label=0, attribute=1)
    table.loc[rare, "attribute"] = 1
    table.loc[common, "attribute"] = 2
    return table


def class_gone(table):
    """Delete the rarest class, and number rows from 0 again."""
    table = table[table["label"] != 9].reset_index(drop=True)
    return table.assign(row=pd.factorize(table["image"])[0])


# column -> other expectations that fail if a row of val has a null there
NULLS = {
    "row": (ONE_ROW,),
    "role": (ONE_ROLE,),
    "file": (FILES,),
    "label": (CLASSES, GROUPS, ONE_NAME, RANKS),
    "class_name": (ONE_NAME,),
    "split": (CLASSES, ATTRIBUTES, ONE_ROLE),
    "group": (GROUPS,),
    "attribute": (ATTRIBUTES,),
}

CORRUPTIONS = [
    *(Corruption(f"null {c}", f"{NOT_NULL} {c}", put(c, None, split="val"), NULLS.get(c, ())) for c in COLUMNS),
    Corruption("missing column", COLUMN_LIST, lambda t: t.drop(columns="source"), (f"{NOT_NULL} source", DISJOINT)),
    Corruption("column too many", COLUMN_LIST, lambda t: t.assign(extra=1)),
    Corruption("columns in another order", COLUMN_LIST, lambda t: t[list(COLUMNS[::-1])]),
    Corruption("duplicate id", f"{UNIQUE} id", duplicate_id, violations=2),
    Corruption("row above the last image", f"{BETWEEN} row", row_too_large, (ONE_ROW,)),
    Corruption("negative row", f"{BETWEEN} row", put("row", -1, split="val"), (ONE_ROW,)),
    Corruption("an image that shows another", ONE_ROW, another_image, violations=3),
    Corruption("a split of two roles", ONE_ROLE, split_of_two_roles),
    Corruption("test splits of role train", ONE_ROLE, everywhere("role", "train", role="test"), violations=2),
    Corruption(
        "label out of set", f"{IN_SET} label", put("label", 10, split="val"), (CLASSES, GROUPS, ONE_NAME, RANKS)
    ),
    Corruption("file that is not there", FILES, put("file", "absent.png", split="val")),
    Corruption("unknown role", f"{IN_SET} role", put("role", "tset", split="val"), (ONE_ROLE,)),
    Corruption("unknown split", f"{IN_SET} split", unknown_split),
    Corruption("class count off by one", CLASSES, one_image_less, (ATTRIBUTES,)),
    Corruption("attribute count off by one", ATTRIBUTES, put("attribute", 1, split="val", attribute=0), violations=2),
    Corruption("source in two roles", DISJOINT, leak),
    Corruption("one group against the rule", GROUPS, put("group", "few", split="val", label=0)),
    Corruption("a class of another group", GROUPS, everywhere("group", "many", label=9), violations=332),
    Corruption("rank missing in a class", RANKS, empty_rank),
    Corruption("a class without an image", EVERY_CLASS, class_gone, (CLASSES, ATTRIBUTES)),
    Corruption("two names for a label", ONE_NAME, put("class_name", "zero", split="val", label=0), violations=2),
    Corruption("one name for two labels", ONE_NAME, everywhere("class_name", "1", label=0), violations=2),
]


def failed(report):
    return {e["name"]: e for e in report["expectations"] if not e["success"]}


def test_the_good_manifest_passes_every_expectation(validation, manifest):
    report, _ = validation
    assert report["success"] is True
    assert report["rows"] == len(manifest)
    assert failed(report) == {}
    assert all(e["violations"] == 0 and e["examples"] == [] for e in report["expectations"])


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.title)
def test_a_corrupt_manifest_fails_exactly_the_expectations_that_it_violates(corruption, manifest, raw, expect):
    report, _ = validate(corruption.corrupt(manifest.copy()), raw, expect)
    assert report["success"] is False
    assert set(failed(report)) == {corruption.fails, *corruption.also}
    line = failed(report)[corruption.fails]
    assert line["violations"] == corruption.violations
    assert len(line["examples"]) == min(corruption.violations, EXAMPLES)
    assert all(line["examples"])


def test_every_expectation_has_a_corruption_in_this_file(expect, raw):
    suite = build_suite(expect, 1, raw)
    names = [" ".join(filter(None, [e.expectation_type, getattr(e, "column", None)])) for e in suite]
    assert len(set(names)) == len(names)
    assert set(names) == {c.fails for c in CORRUPTIONS}


def test_a_report_names_every_expectation_of_the_suite(validation, expect, raw):
    assert len(validation[0]["expectations"]) == len(build_suite(expect, 1, raw))


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_manifest_without_a_column_is_refused_without_a_crash(column, manifest, raw, expect):
    report, _ = validate(manifest.drop(columns=column), raw, expect)
    assert {COLUMN_LIST, f"{NOT_NULL} {column}"} <= set(failed(report))
    with pytest.raises(Refused, match=column):
        admit(manifest, report)


def test_an_empty_file_is_a_violation(manifest, tmp_path):
    (tmp_path / "full.png").write_bytes(b"x")
    (tmp_path / "empty.png").touch()
    rows = manifest.iloc[:4].assign(file=["full.png", "empty.png", "absent.png", "17"])
    assert rules.files_exist(rows, str(tmp_path)) == ["empty.png", "absent.png"]


def test_an_empty_manifest_is_refused(manifest, raw, expect):
    report, _ = validate(manifest.iloc[:0], raw, expect)
    assert CLASSES in failed(report)


def test_labels_that_are_text_are_refused(manifest, raw, expect):
    report, _ = validate(manifest.assign(label=manifest["label"].astype(str)), raw, expect)
    assert f"{IN_SET} label" in failed(report)


def test_a_report_counts_all_violations_and_shows_at_most_ten(manifest, raw, expect):
    report, _ = validate(manifest.assign(group="many"), raw, expect)
    line = failed(report)[GROUPS]
    assert line["violations"] == int((manifest["group"] != "many").sum()) > 1000
    assert len(line["examples"]) == EXAMPLES == 10
    assert "medium" in line["examples"][0] or "few" in line["examples"][0]


def test_an_example_names_the_row_by_its_id(manifest, raw, expect):
    report, _ = validate(put("row", -7, split="val")(manifest.copy()), raw, expect)
    (example,) = failed(report)[f"{BETWEEN} row"]["examples"]
    assert "-7" in example
    assert manifest.loc[first(manifest, split="val"), "id"] in example


def test_admit_refuses_with_expectation_count_and_rows(manifest, raw, expect):
    corrupt = duplicate_id(leak(manifest.copy()))
    report, _ = validate(corrupt, raw, expect)
    with pytest.raises(Refused) as refused:
        admit(corrupt, report)
    message = refused.value.message
    assert re.search(f"{DISJOINT}: 1 violation, e.g. digit[0-9]{{4}} is in train and val", message)
    assert f"{UNIQUE} id: 2 violations, e.g. id {manifest.loc[0, 'id']}" in message
    assert len(message.splitlines()) == 4 and "--update takes them" in message.splitlines()[-1]
    assert refused.value.exit_code == 2


def test_admit_returns_a_good_manifest_unchanged(manifest, validation):
    assert admit(manifest, validation[0]) is manifest


def test_the_report_is_the_same_for_two_calls_and_is_strict_json(validation, manifest, raw, expect):
    again, _ = validate(manifest.copy(), raw, expect)
    assert json.dumps(again, allow_nan=False) == json.dumps(validation[0], allow_nan=False)


def test_the_report_of_a_refused_manifest_is_the_same_for_two_calls(manifest, raw, expect):
    texts = [json.dumps(validate(unknown_split(manifest.copy()), raw, expect)[0]) for _ in range(2)]
    assert texts[0] == texts[1]


def test_the_report_has_no_time_no_identifier_and_no_path(validation):
    text = json.dumps(validation[0])
    assert not re.search(r"\d\d:\d\d|20\d\d-\d\d|[0-9a-f]{8}-[0-9a-f]{4}|batch|traceback|/tmp", text)


def test_the_page_is_html_that_names_the_expectations(validation):
    page = validation[1]
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "Each class has exactly the stated number of images" in page
    assert "values must never be null" in page


def test_an_unknown_key_of_expect_is_refused_with_the_valid_ones(content):
    block = content["digits_glt"]["expect"] | {"class_count": {}}
    with pytest.raises(Refused, match="unknown key class_count; valid keys: classes, class_counts"):
        parse(Expect, block, "expect")


def test_without_attribute_counts_there_is_no_attribute_expectation(content, raw):
    block = content["digits_glt"]["expect"] | {"attribute_counts": {}, "every_rank": []}
    names = [e.expectation_type for e in build_suite(parse(Expect, block, "expect"), 1, raw)]
    assert not {ATTRIBUTES, RANKS} & set(names)
    assert {CLASSES, DISJOINT, GROUPS, ONE_NAME} <= set(names)


@pytest.mark.parametrize(
    ("stated", "violations"),
    [
        ({"total": 95, "classes": 10, "largest": 24, "smallest": 2}, []),
        ({"total": 96}, ["val total: 95, not 96"]),
        ({"largest": 25, "smallest": 1}, ["val largest: 24, not 25", "val smallest: 2, not 1"]),
        ({"classes": 9}, ["val classes: 10, not 9"]),
    ],
)
def test_class_counts_can_be_stated_as_a_summary(manifest, stated, violations):
    assert rules.class_counts(manifest, {"val": stated}, 10) == violations


def test_a_summary_counts_the_classes_that_have_no_image(manifest):
    stated = {"val": {"total": 95, "classes": 10, "largest": 24, "smallest": 0}}
    assert rules.class_counts(manifest, stated, 11) == []


def test_a_wrong_summary_fails_in_the_suite_by_name(manifest, raw, expect, content):
    block = content["digits_glt"]["expect"]
    good = parse(Expect, block | {"class_counts": block["class_counts"] | {"val": {"total": 95}}}, "expect")
    bad = parse(Expect, block | {"class_counts": block["class_counts"] | {"val": {"total": 96}}}, "expect")
    assert validate(manifest, raw, good)[0]["success"] is True
    assert failed(validate(manifest, raw, bad)[0])[CLASSES]["examples"] == ["val total: 95, not 96"]


def test_run_length_coded_counts_equal_the_list(content):
    block = content["digits_glt"]["expect"]
    counts = block["class_counts"] | {"test_gbl": "240x10"}
    assert parse(Expect, block | {"class_counts": counts}, "expect") == parse(Expect, block, "expect")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 9}, "class_counts must state 9 classes .*: train_glt has 10"),
        ({"every_rank": ["train"]}, "splits that class_counts does not state: train"),
        ({"attribute_counts": {"test": [1]}}, "splits that class_counts does not state: test"),
        ({"groups": {"by": "rank", "many": 4, "medium": 4, "split": "train"}}, "class_counts does not state: train"),
        ({"class_counts": {"train_glt": {}}}, "state at least one of total, classes, largest, smallest"),
        ({"attribute_counts": {}}, "rank"),  # without a number of ranks, every_rank would check nothing
    ],
)
def test_an_expect_block_that_contradicts_itself_is_refused(content, change, message):
    with pytest.raises(Refused, match=message):
        parse(Expect, content["digits_glt"]["expect"] | change, "expect")


def run_split(folder, index, spec, expect):
    """Run the stage `split` of the real pipeline, with its files in `folder`."""
    datasets = {
        "digits_glt.index": MemoryDataset(index),
        "raw_digits": MemoryDataset(folder),
        "params:digits_glt.source": MemoryDataset(spec.source),
        "params:digits_glt.split": MemoryDataset(spec.split),
        "params:digits_glt.expect": MemoryDataset(expect),
        "digits_glt.manifest": Parquet(str(folder / "manifest.parquet")),
        "digits_glt.images": Array(str(folder / "images.npy")),
        "digits_glt.data_identity": Json(str(folder / "data_identity.json")),
        "digits_glt.validation": Json(str(folder / "validation.json")),
    }
    stage = split_stage.create("digits_glt", "digits", "digits_glt.index", cluster=False)
    SequentialRunner().run(stage, DataCatalog(datasets))


def test_the_stage_writes_an_admitted_manifest_its_images_and_its_report(
    tmp_path, index, spec, expect, manifest, images, data_identity
):
    run_split(tmp_path, index, spec, expect)
    assert pd.read_parquet(tmp_path / "manifest.parquet").equals(manifest)
    assert (np.load(tmp_path / "images.npy") == images).all()
    assert json.loads((tmp_path / "data_identity.json").read_text()) == data_identity
    assert json.loads((tmp_path / "validation.json").read_text())["success"] is True


def test_the_stage_does_not_write_a_refused_manifest(tmp_path, index, spec, expect):
    counts = expect.class_counts | {"val": [25, *expect.class_counts["val"][1:]]}
    with pytest.raises(Refused, match="val class 0: 24 images, not 25"):
        run_split(tmp_path, index, spec, expect.model_copy(update={"class_counts": counts}))
    assert [path.name for path in tmp_path.iterdir()] == ["validation.json"]
    assert json.loads((tmp_path / "validation.json").read_text())["success"] is False


def test_a_refused_run_exits_with_2_deletes_the_old_manifest_and_keeps_the_report(copied, content, environment):
    content["digits_glt"]["expect"]["class_counts"]["train_glt"][0] = 101
    (copied / "conf/base/parameters/digits_glt.yml").write_text(yaml.safe_dump(content))
    old = copied / "data/05_model_input/digits_glt/manifest.parquet"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"an old manifest")
    command = [sys.executable, "-m", "kedro", "run", "--pipeline=digits_glt", "--tags=fetch,cluster,split"]
    done = subprocess.run(command, cwd=copied, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"{CLASSES}: 1 violation, e.g. train_glt class 0: 100 images, not 101" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in copied.rglob("*") if "manifest" in path.name] == []
    report = json.loads((copied / "data/08_reporting/digits_glt/validation.json").read_text())
    assert set(failed(report)) == {CLASSES}
    assert (copied / "data/08_reporting/digits_glt/validation.html").stat().st_size > 1000


def test_the_page_has_a_sentence_for_every_rule_and_fetches_nothing(validation):
    """Without a renderer, great-expectations shows the arguments; with its own page, a browser asks six other hosts."""
    import inspect
    from html import unescape

    from ltpipe.data.checks import expectations

    page = unescape(re.sub(r"\s+", " ", validation[1]))
    assert "**{" not in page and "batch_id" not in page
    fetched = re.findall(r"(?:src|href)=\"?'?(?:https?:)?//[^\"' >]*|url\(['\"]?http[^)]*", page)
    assert not fetched and "<script" not in page and "<link" not in page
    names = {entry["name"].split()[0] for entry in validation[0]["expectations"]}
    kinds = [kind for _, kind in inspect.getmembers(expectations, inspect.isclass) if hasattr(kind, "rule")]
    shown = [kind for kind in kinds if re.sub(r"(?<!^)([A-Z])", r"_\1", kind.__name__).lower() in names]
    assert len(shown) >= 8 and all(kind.__doc__ in page for kind in shown)
    assert "train_glt: 403 images (100, 77, 59" in page
