"""Metrics: answers worked out by hand, naive loops, scikit-learn, and identities that must hold."""

import ast
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from ltpipe.config.spec import Refused, load_item, menu_names, parse
from ltpipe.evaluation import metrics
from ltpipe.evaluation.measure import Evaluation, confusion_counts, flatten, measure, split_metrics
from ltpipe.evaluation.metrics import higher_is_better, parse_path
from ltpipe.evaluation.metrics.accuracy import accuracy
from ltpipe.evaluation.metrics.f1_of_averages import f1_of_averages
from ltpipe.evaluation.metrics.precision import class_precision, precision
from ltpipe.evaluation.report import matrices
from ltpipe.recipe.run import Run

MENU = menu_names(metrics.MENU)
LABELS = np.array([0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1])


def table(labels, predicted, group="many", attribute=-1, confidence=0.5):
    columns = {"label": labels, "predicted": predicted, "group": group, "attribute": attribute}
    return pd.DataFrame(columns | {"confidence": confidence})


@st.composite
def tables(draw, attributes=True):
    """(classes, test split): up to 40 images; classes, groups and attributes may be missing; a class has one group."""
    classes = draw(st.integers(1, 6))
    label = st.integers(0, classes - 1)
    rank = st.integers(-1, 2) if attributes else st.just(-1)
    images = draw(st.lists(st.tuples(label, label, rank, st.integers(0, 999)), min_size=1, max_size=40))
    group = draw(st.lists(st.sampled_from(["many", "medium", "few"]), min_size=classes, max_size=classes))
    y, p, attribute, confidence = (np.array(column) for column in zip(*images, strict=True))
    # no confidence on the edge of a bin
    return classes, table(y, p, [group[c] for c in y], attribute, confidence / 1000 + 0.0001)


# The definitions image by image: images -> value as a share. An image is (label, predicted, attribute, confidence).


def share(images):
    return sum(y == p for y, p, *_ in images) / len(images)


def by(images, key):
    found = defaultdict(list)
    for image in images:
        found[key(image)].append(image)
    return found.values()


def naive_recall(images):
    each = [share(of_class) for of_class in by(images, lambda image: image[0])]
    return sum(each) / len(each)


def naive_precision(images, among=None):
    each = []
    for c in {y for y, *_ in among or images}:
        predicted = [image for image in images if image[1] == c]
        each.append(share(predicted) if predicted else 0)
    return sum(each) / len(each)


def naive_f1_of_averages(images):
    a, p = share(images), naive_precision(images)
    return 2 * a * p / (a + p) if a + p else 0


def naive_macro_f1(images):
    each = []
    for c in {y for y, *_ in images}:
        hits = sum(y == p == c for y, p, *_ in images)
        each.append(2 * hits / sum((y == c) + (p == c) for y, p, *_ in images))
    return sum(each) / len(each)


def naive_worst_attribute(images):
    known = [image for image in images if image[2] >= 0]
    return min((naive_recall(inside) for inside in by(known, lambda image: image[2])), default=naive_recall(images))


def naive_ece(images):
    bins = by(images, lambda image: int(np.ceil(image[3] * 15)))
    return sum(abs(sum((y == p) - trust for y, p, _, trust in inside)) for inside in bins) / len(images)


NAIVE: dict[str, Any] = {
    "accuracy": share,
    "recall": naive_recall,
    "precision": naive_precision,
    "f1_of_averages": naive_f1_of_averages,
    "macro_f1": naive_macro_f1,
    "worst_class": lambda images: min(share(of_class) for of_class in by(images, lambda image: image[0])),
    "worst_group": lambda images: min(share(pair) for pair in by(images, lambda image: (image[0], image[2]))),
    "worst_attribute": naive_worst_attribute,
    "ece": naive_ece,
}


def naive(name, rows):
    """Part -> value in percent, of every part of the metric that has images."""
    images = list(zip(rows["label"], rows["predicted"], rows["attribute"], rows["confidence"], strict=True))
    values = {"all": NAIVE[name](images)}
    for part in sorted({*rows["group"], *(f"attribute{rank}" for rank in rows["attribute"] if rank >= 0)}):
        inside = [i for i, g in zip(images, rows["group"], strict=True) if part in (g, f"attribute{i[2]}")]
        if part in rows["group"].values and name == "precision":
            values[part] = naive_precision(images, among=inside)
        elif re.sub(r"\d+", "<rank>", part) in load_item(metrics.MENU, name).PARTS:
            values[part] = NAIVE[name](inside)
    return {part: 100 * value for part, value in values.items()}


# the menu


def test_every_metric_of_the_menu_is_tested():
    assert set(NAIVE) == set(MENU)


@pytest.mark.parametrize("name", MENU)
@given(tables())
@settings(max_examples=60)
def test_every_part_of_a_metric_equals_a_naive_loop(name, case):
    classes, rows = case
    assert load_item(metrics.MENU, name).measure(rows, classes) == pytest.approx(naive(name, rows), abs=1e-9)


@pytest.mark.parametrize("name", MENU)
def test_a_metric_says_what_it_is_which_way_is_better_and_which_parts_it_has(name):
    module = load_item(metrics.MENU, name)
    assert isinstance(module.HIGHER_IS_BETTER, bool)
    assert module.PARTS[0] == "all"
    assert set(module.PARTS) <= {"all", "many", "medium", "few", metrics.ATTRIBUTE}
    assert re.search(r"(19|20)\d\d|arXiv", module.__doc__), "no source"


@pytest.mark.parametrize("name", MENU)
def test_the_better_of_a_right_and_a_wrong_classifier_has_the_better_value(name):
    """Both are sure of what they say."""
    right, wrong = (table(LABELS, predicted, confidence=1.0) for predicted in (LABELS, (LABELS + 1) % 3))
    values = [load_item(metrics.MENU, name).measure(rows, 3)["all"] for rows in (right, wrong)]
    assert values == ([100, 0] if higher_is_better(f"clt.{name}{'.all' * metrics.has_parts(name)}") else [0, 100])


@pytest.mark.parametrize("name", MENU)
def test_a_metric_depends_on_nothing_but_its_arguments_and_imports_no_pandas(name):
    tree = ast.parse(Path(load_item(metrics.MENU, name).__file__).read_text())
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert all(module.startswith("ltpipe.") or module == "numpy" for module in imported), imported


@pytest.mark.parametrize("name", MENU)
@given(tables(), st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_a_metric_does_not_depend_on_the_order_of_the_images(name, case, random):
    classes, rows = case
    order = random.sample(range(len(rows)), len(rows))
    measured = load_item(metrics.MENU, name).measure
    assert measured(rows.iloc[order], classes) == pytest.approx(measured(rows, classes), abs=1e-9)


@given(tables())
@settings(max_examples=60)
def test_metrics_agree_with_scikit_learn(case):
    classes, rows = case
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    macro = {"labels": np.unique(y), "average": "macro", "zero_division": 0}
    found = flatten(split_metrics(rows, classes))
    assert found["accuracy.all"] == pytest.approx(100 * accuracy_score(y, p))
    assert found["recall.all"] == pytest.approx(100 * recall_score(y, p, **macro))
    assert found["precision.all"] == pytest.approx(100 * precision_score(y, p, **macro))
    assert found["macro_f1"] == pytest.approx(100 * f1_score(y, p, **macro))


@given(tables())
@settings(max_examples=60)
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_the_confusion_agrees_with_scikit_learn(case):
    classes, rows = case
    wanted = confusion_matrix(rows["label"], rows["predicted"], labels=range(classes))
    counts = confusion_counts(rows["label"].to_numpy(), rows["predicted"].to_numpy(), classes)
    assert min(counts["n"]) > 0
    assert matrices.confusion_matrix([counts], classes).tolist() == wanted.tolist()


def test_the_confusion_of_many_classes_is_small_on_disk_and_pooled_in_the_plot():
    """iNaturalist 2018: 24,426 test images of 8,142 classes. The dense matrix had 66 million numbers."""
    random = np.random.RandomState(0)
    labels = np.repeat(np.arange(8142), 3)
    predicted = np.where(random.rand(len(labels)) < 0.6, labels, random.randint(0, 8142, len(labels)))
    counts = confusion_counts(labels, predicted, 8142)
    assert len(counts["n"]) <= len(labels) and sum(counts["n"]) == len(labels)
    matrix = matrices.confusion_matrix([counts, counts], 8142)
    assert matrix.shape == (matrices.CELLS, matrices.CELLS) and matrix.sum() == 2 * len(labels)
    pooled = predicted * matrices.CELLS // 8142 == labels * matrices.CELLS // 8142
    assert np.trace(matrix) == 2 * pooled.sum()


@given(tables())
@settings(max_examples=60)
def test_the_worst_is_at_most_the_mean_and_a_group_at_most_its_class(case):
    classes, rows = case
    found = split_metrics(rows, classes)
    assert found["worst_group"] <= found["worst_class"] <= found["recall"]["all"] + 1e-9


@given(tables(attributes=False))
@settings(max_examples=30)
def test_without_attributes_the_worst_group_is_the_worst_class_and_there_are_no_attributes(case):
    classes, rows = case
    found = split_metrics(rows, classes)
    assert found["worst_group"] == found["worst_class"]
    assert found["worst_attribute"] == found["recall"]["all"]
    assert not [path for path in flatten(found) if ".attribute" in path]


@given(tables())
@settings(max_examples=40)
def test_every_path_that_is_measured_is_a_metric_path_except_the_number_of_images(case):
    classes, rows = case
    for path in flatten({"clt": split_metrics(rows, classes)}):
        if path != "clt.n":
            assert ".".join(parse_path(path)).removesuffix(".all") == path.removesuffix(".all")


def test_a_new_file_is_measured_and_has_a_path_without_another_change(tmp_path, monkeypatch, spec):
    (tmp_path / "errors.py").write_text(
        'HIGHER_IS_BETTER = False\nPARTS = ("all",)\ndef measure(rows, classes):\n    return {"all": 50.0}\n'
    )
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    assert split_metrics(table(LABELS, PREDICTED), 3)["errors"] == 50
    assert parse_path("clt.errors") == ("clt", "errors", "all") and not higher_is_better("clt.errors")
    assert "ltpipe.evaluation.metrics.errors" in spec.evaluate.modules()


def test_one_class_only():
    found = flatten(split_metrics(table([0, 0, 0, 0], [0, 0, 0, 0], confidence=1.0), 1))
    assert found.pop("n") == 4 and found.pop("ece") == 0
    assert set(found.values()) == {100}


def test_a_class_that_is_never_predicted_counts_as_0():
    found = split_metrics(table(LABELS, PREDICTED), 3)
    assert found["macro_f1"] == pytest.approx(100 * (4 / 5 + 2 / 5 + 0) / 3)
    assert found["recall"]["all"] == pytest.approx(100 * (1 + 1 / 2 + 0) / 3)
    assert found["worst_class"] == found["worst_group"] == 0


def test_the_worst_group_is_a_pair_of_class_and_attribute():
    labels, predicted, attribute = [0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 1]
    found = split_metrics(table(labels, predicted, attribute=attribute), 2)
    assert (found["worst_class"], found["worst_group"]) == (75, 0)


def test_a_metric_without_parts_is_written_as_a_number():
    found = split_metrics(table(LABELS, PREDICTED), 3)
    assert {name for name in MENU if not isinstance(found[name], dict)} == {
        "f1_of_averages", "macro_f1", "worst_attribute", "worst_class", "worst_group", "ece"
    }  # fmt: skip
    assert set(found["recall"]) == {"all", "many"}


# metric paths


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("clt.accuracy.all", ("clt", "accuracy", "all")),
        ("glt.precision.few", ("glt", "precision", "few")),
        ("glt.accuracy.attribute10", ("glt", "accuracy", "attribute10")),
        ("lt.accuracy.attribute=site 2.b", ("lt", "accuracy", "attribute=site 2.b")),
        ("my_own.f1_of_averages", ("my_own", "f1_of_averages", "all")),
    ],
)
def test_a_path_is_protocol_metric_and_part(path, place):
    assert parse_path(path) == place


@pytest.mark.parametrize(
    "path", ["", "accuracy", "clt", "clt.", "clt.acuracy.all", "clt.n", ".accuracy.all", "clt..all"]
)
def test_a_path_without_a_metric_is_refused_with_the_metrics(path):
    valid = r"is not <protocol>\.<metric>\.<part>; metrics: accuracy, ece, f1_of_averages, macro_f1"
    with pytest.raises(ValueError, match=valid):
        parse_path(path)


@pytest.mark.parametrize(
    "part",
    [
        "",
        "fwe",
        "all.mean",
        "All",
        "attribute",
        "attribute-1",
        "attribute<rank>",
        "attribute01",
        "attribute0x",
        "all\n",
    ],
)
def test_a_path_of_an_unknown_part_is_refused_with_the_parts(part):
    with pytest.raises(
        ValueError, match=r"parts of accuracy: all, many, medium, few, attribute<rank>, attribute=<name>"
    ):
        parse_path(f"clt.accuracy.{part}")


def test_recall_has_no_attributes():
    with pytest.raises(ValueError, match=r"'clt\.recall\.attribute0' .*; parts of recall: all, many, medium, few$"):
        parse_path("clt.recall.attribute0")


@pytest.mark.parametrize("path", ["clt.f1_of_averages.all", "clt.f1_of_averages.few", "clt.f1_of_averages."])
def test_a_part_of_a_metric_without_parts_is_refused_with_the_right_path(path):
    with pytest.raises(ValueError, match=r"f1_of_averages has no parts, write clt\.f1_of_averages$"):
        parse_path(path)


def test_the_calibration_error_alone_is_better_where_it_is_lower():
    paths = [f"clt.{name}{'.all' * metrics.has_parts(name)}" for name in MENU]
    assert [path for path in paths if not higher_is_better(path)] == ["clt.ece"]


def test_the_direction_of_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="metrics: accuracy"):
        higher_is_better("clt.eec")


def test_an_evaluation_depends_on_every_metric_although_none_is_named(spec):
    assert spec.evaluate.modules() == {f"ltpipe.evaluation.metrics.{name}" for name in MENU}


# accuracy, precision and f1


def balanced(seed, each=8, classes=10):
    """A balanced test set with an imperfect classifier that never predicts class 3; groups of 4, 4 and 2 classes."""
    random = np.random.RandomState(seed)
    labels = np.repeat(np.arange(classes), each)
    predicted = np.where(random.rand(len(labels)) < 0.6, labels, random.randint(classes, size=len(labels)))
    predicted[predicted == 3] = 4
    return table(labels, predicted, np.repeat(["many", "medium", "few"], [4, 4, 2]).repeat(each))


def test_the_known_answer_of_accuracy_precision_and_f1():
    metrics = split_metrics(table(LABELS, PREDICTED), 3)
    assert metrics["accuracy"]["all"] == 50
    assert metrics["precision"]["all"] == pytest.approx(100 / 3)
    assert metrics["f1_of_averages"] == pytest.approx(40)
    assert metrics["n"] == 6


def test_a_class_that_is_never_predicted_contributes_0_and_stays_in_the_mean():
    assert class_precision(LABELS, PREDICTED, 3).tolist() == pytest.approx([2 / 3, 1 / 3, 0])


def test_a_predicted_class_absent_from_the_labels_is_not_averaged_but_absorbs_errors():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 2])
    assert precision(labels, predicted, 3) == 100
    assert accuracy(labels, predicted) == 50


def test_f1_is_the_harmonic_mean_of_the_overall_numbers():
    assert f1_of_averages(50, 100 / 3) == pytest.approx(40)
    assert f1_of_averages(100, 100) == 100
    assert f1_of_averages(0, 0) == 0


@given(st.integers(0, 10**6))
@settings(max_examples=40)
def test_groups_of_a_balanced_test_set_average_to_the_whole(seed):
    metrics = split_metrics(balanced(seed), 10)
    for metric in ("accuracy", "precision"):
        parts = [share * metrics[metric][group] for group, share in (("many", 0.4), ("medium", 0.4), ("few", 0.2))]
        assert sum(parts) == pytest.approx(metrics[metric]["all"])


def test_accuracy_of_a_group_is_the_mean_recall_of_its_classes():
    rows = balanced(0)
    recall = rows.assign(hit=rows["label"] == rows["predicted"]).groupby("label")["hit"].mean()
    assert split_metrics(rows, 10)["accuracy"]["few"] == pytest.approx(100 * recall[[8, 9]].mean())


def test_precision_of_a_group_counts_predictions_on_the_whole_test_set():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    metrics = split_metrics(table(labels, predicted, group=["many", "many", "few", "few"]), 2)["precision"]
    assert metrics["many"] == pytest.approx(200 / 3)
    assert metrics["few"] == 100


def test_precision_of_an_attribute_counts_predictions_inside_the_attribute_only():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    metrics = split_metrics(table(labels, predicted, attribute=[0, 0, 1, 1]), 2)
    assert metrics["precision"]["attribute0"] == metrics["precision"]["attribute1"] == 100
    assert metrics["precision"]["all"] == pytest.approx((200 / 3 + 100) / 2)
    assert metrics["accuracy"]["attribute1"] == 50


def test_an_empty_group_is_left_out_and_not_0():
    metrics = split_metrics(table(LABELS, PREDICTED, group=["many", "many", "few", "few", "few", "few"]), 3)
    assert set(metrics["accuracy"]) == set(metrics["precision"]) == {"all", "many", "few"}


def test_attributes_with_names_have_values_by_name_and_the_worst_is_by_name_too():
    """Rank 0 is another name in each class, so the values by rank are others."""
    labels, predicted = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0, 0, 0])
    rows = table(labels, predicted, attribute=[0, 0, 1, 1, 0, 0, 1, 1])
    names = ["day", "day", "night", "night", "night", "night", "day", "day"]
    found = split_metrics(rows.assign(attribute_name=names), 2)
    assert found["accuracy"]["attribute=day"] == 50 and found["accuracy"]["attribute=night"] == 25
    assert found["worst_attribute"] == 25 and split_metrics(rows, 2)["worst_attribute"] == 0
    assert "attribute=day" not in split_metrics(rows, 2)["accuracy"]


def test_data_without_attributes_have_no_attribute_metrics():
    assert set(split_metrics(table(LABELS, PREDICTED), 3)["accuracy"]) == {"all", "many"}


def test_flatten_names_each_number_by_its_path():
    tree = {"clt": {"accuracy": {"all": 90, "few": 1.5}, "n": 3}, "x": 0}
    assert flatten(tree) == {"clt.accuracy.all": 90, "clt.accuracy.few": 1.5, "clt.n": 3, "x": 0}
    assert flatten({}) == {}


def test_measure_measures_the_protocols_of_the_training_split_and_no_other(cell):
    assert list(cell("ce").metrics["protocols"]) == ["clt", "glt"]
    assert list(cell("balanced").metrics["protocols"]) == ["alt"]


def test_measure_uses_the_test_split_of_each_protocol(cell):
    made = cell()
    for name, split in (("clt", "test_cbl"), ("glt", "test_gbl")):
        rows = made.predictions[made.predictions["split"] == split]
        assert made.metrics["protocols"][name] == split_metrics(rows, 10)


def test_measure_carries_the_provenance_of_the_model_into_the_metrics(cell):
    made = cell("logit_adjust_post_hoc", 1)
    facts, metrics = made.predictions.attrs["facts"], made.metrics
    assert {k: v for k, v in metrics.items() if k not in ("protocols", "measured")} == {
        key: facts[key] for key in ("cell", "seed", "data", "code", "recipe", "checkpoint", "started_from", "provider")
    }
    assert metrics["cell"] == "digits_glt.logit_adjust_post_hoc.s1"
    assert metrics["started_from"] == cell("ce", 1).metrics["checkpoint"]
    assert {key: made.details[key] for key in ("cell", "seed", "data", "code", "recipe")}.items() <= metrics.items()
    assert (made.classes["cell"] == metrics["cell"]).all()


def test_measure_lists_recall_precision_and_sizes_of_each_class(cell, spec):
    made = cell()
    rows = made.classes[made.classes["protocol"] == "glt"]
    assert rows["train_images"].tolist() == spec.expect.class_counts["train_glt"]
    assert rows["n"].tolist() == [240] * 10
    assert rows["class"].tolist() == [str(c) for c in range(10)]
    assert rows["group"].tolist() == ["many"] * 4 + ["medium"] * 4 + ["few"] * 2
    assert rows["recall"].mean() == pytest.approx(made.metrics["protocols"]["glt"]["accuracy"]["all"])
    assert rows["precision"].mean() == pytest.approx(made.metrics["protocols"]["glt"]["precision"]["all"])


def test_measure_gives_the_confusion_of_each_protocol(cell):
    made = cell()
    matrix = matrices.confusion_matrix([made.details["protocols"]["glt"]["confusion"]], 10)
    assert matrix.sum() == 2400
    assert 100 * np.trace(matrix) / 2400 == pytest.approx(made.metrics["protocols"]["glt"]["accuracy"]["all"])


def test_what_measure_returns_is_strict_json(cell):
    made = cell()
    json.dumps([made.metrics, made.details], allow_nan=False)


@pytest.fixture
def again(cell, manifest, spec):
    """again(change...): measure ce, seed 0, with other arguments."""
    usual = {"predictions": cell().predictions, "manifest": manifest, "evaluation": spec.evaluate}
    usual |= {"parity": spec.parity, "run": spec.runs["ce"].train, "schedule": spec.schedule, "model": spec.model}
    return lambda **changes: measure(**usual | {"seed": 0, "cell": "digits_glt.ce.s0"} | changes)


def test_measure_refuses_a_run_that_no_protocol_evaluates(again):
    evaluation = Evaluation(protocols={"alt": {"train": "train_cbl", "test": "test_gbl"}})
    with pytest.raises(Refused, match="no protocol trains on 'train_glt'; protocols train on: train_cbl"):
        again(evaluation=evaluation)


def test_measure_refuses_a_protocol_without_test_images(again):
    evaluation = Evaluation(protocols={"clt": {"train": "train_glt", "test": "test_new"}})
    with pytest.raises(Refused, match="protocol clt: the manifest has no image in split 'test_new'"):
        again(evaluation=evaluation)


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 1}, "seed is 0, not 1"),
        ({"cell": "digits_glt.ce.s1"}, r"cell is digits_glt\.ce\.s0, not digits_glt\.ce\.s1"),
        ({"run": Run(method="ce", split="train_cbl")}, "recipe is "),
        ({"run": Run(method="focal", split="train_glt")}, "code is "),
    ],
)
def test_measure_refuses_predictions_of_another_cell_code_or_recipe(again, change, difference):
    with pytest.raises(Refused, match=f"the table of predictions of .* is of another state: {difference}"):
        again(**change)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows.iloc[1:], "1 images have none, 0 are unknown, 0 come twice"),
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "0 images have none, 0 are unknown, 1 come twice"),
        (lambda rows: rows.assign(id="x" + rows["id"]), "2895 images have none, 2895 are unknown"),
        (lambda rows: rows.assign(label=rows["label"].iloc[::-1].to_numpy()), "0 images have none, 0 are unknown"),
        (lambda rows: rows.assign(group="few"), "0 images have none, 0 are unknown"),
    ],
    ids=["one fewer", "one twice", "others", "other labels", "other groups"],
)
def test_measure_refuses_predictions_that_are_not_those_for_the_manifest(cell, again, spoil, said):
    rows = spoil(cell().predictions.copy())
    rows.attrs = cell().predictions.attrs
    with pytest.raises(Refused, match=f"digits_glt.ce.s0: the predictions are not those for this manifest: {said}"):
        again(predictions=rows)


def test_measure_refuses_another_manifest_though_it_has_the_same_test_images(manifest, again):
    fewer = manifest.drop(manifest.index[manifest["role"] == "train"][:1])
    with pytest.raises(Refused, match="the predictions are not those for this manifest: 0 images have none"):
        again(manifest=fewer)


def test_the_order_of_the_predictions_does_not_matter(cell, again):
    shuffled = cell().predictions.sample(frac=1, random_state=0)
    shuffled.attrs = cell().predictions.attrs
    assert again(predictions=shuffled)[0]["protocols"]["glt"]["accuracy"] == (
        pytest.approx(cell().metrics["protocols"]["glt"]["accuracy"])
    )


def test_an_evaluation_without_protocols_is_refused():
    with pytest.raises(Refused, match="protocols"):
        parse(Evaluation, {"protocols": {}}, "evaluate")
