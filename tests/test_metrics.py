"""Metrics against answers worked out by hand, against scikit-learn, and by identities that must hold."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score

from ltpipe.config.spec import Refused, parse
from ltpipe.evaluation.metrics.measure import (
    Evaluation,
    accuracy,
    class_precision,
    confusion_counts,
    f1,
    flatten,
    measure,
    precision,
    split_metrics,
)
from ltpipe.recipe.run import Run

LABELS = np.array([0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1])

pairs = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=40).map(np.array),
    )
)


def table(labels, predicted, group="many", attribute=-1):
    columns = {"label": labels, "predicted": predicted, "group": group, "attribute": attribute, "confidence": 0.5}
    return pd.DataFrame(columns)


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
    assert metrics["f1"] == pytest.approx(40)
    assert metrics["n"] == 6


def test_a_class_that_is_never_predicted_contributes_0_and_stays_in_the_mean():
    assert class_precision(LABELS, PREDICTED, 3).tolist() == pytest.approx([2 / 3, 1 / 3, 0])


def test_a_predicted_class_absent_from_the_labels_is_not_averaged_but_absorbs_errors():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 2])
    assert precision(labels, predicted, 3) == 100
    assert accuracy(labels, predicted) == 50


def test_f1_is_the_harmonic_mean_of_the_overall_numbers():
    assert f1(50, 100 / 3) == pytest.approx(40)
    assert f1(100, 100) == 100
    assert f1(0, 0) == 0


@given(pairs)
@settings(max_examples=60)
def test_accuracy_precision_and_confusion_agree_with_scikit_learn(case):
    classes, ((*labels,), (*predicted,)) = case[0], case[1].T
    y, p = np.array(labels), np.array(predicted)
    macro = precision_score(y, p, labels=np.unique(y), average="macro", zero_division=0)
    assert accuracy(y, p) == pytest.approx(100 * accuracy_score(y, p))
    assert precision(y, p, classes) == pytest.approx(100 * macro)
    assert confusion_counts(y, p, classes).tolist() == confusion_matrix(y, p, labels=range(classes)).tolist()


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


def test_data_without_attributes_have_no_attribute_metrics():
    assert set(split_metrics(table(LABELS, PREDICTED), 3)["accuracy"]) == {"all", "many"}


def test_flatten_names_each_number_by_its_path():
    tree = {"clt": {"accuracy": {"all": 90, "few": 1.5}, "n": 3}, "x": 0}
    assert flatten(tree) == {"clt.accuracy.all": 90, "clt.accuracy.few": 1.5, "clt.n": 3, "x": 0}
    assert flatten({}) == {}


def test_measure_measures_the_protocols_of_the_training_split_and_no_other(cell):
    assert list(cell(split="train_glt").metrics["protocols"]) == ["clt", "glt"]
    assert list(cell(split="train_cbl").metrics["protocols"]) == ["alt"]


def test_measure_uses_the_test_split_of_each_protocol(cell):
    made = cell()
    for name, split in (("clt", "test_cbl"), ("glt", "test_gbl")):
        rows = made.predictions[made.predictions["split"] == split]
        assert made.metrics["protocols"][name] == split_metrics(rows, 10)


def test_measure_carries_the_provenance_of_the_model_into_the_metrics(cell):
    made = cell("ce", 1)
    facts = made.predictions.attrs["facts"]
    provenance = {"cell": "digits_glt.ce.s1", "seed": 1, "code": "code-of-ce", "provider": "CPUExecutionProvider"}
    assert {k: v for k, v in made.metrics.items() if k != "protocols"} == provenance | {"data": facts["data"]}


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
    matrix = np.array(made.details["protocols"]["glt"]["confusion"])
    assert matrix.sum() == 2400
    assert 100 * np.trace(matrix) / 2400 == pytest.approx(made.metrics["protocols"]["glt"]["accuracy"]["all"])


def test_what_measure_returns_is_strict_json(cell):
    made = cell()
    json.dumps([made.metrics, made.details], allow_nan=False)


def test_measure_refuses_a_run_that_no_protocol_evaluates(cell, spec):
    with pytest.raises(Refused, match="no protocol trains on 'val'; protocols train on: train_cbl, train_glt"):
        measure(cell().predictions, spec.evaluate, Run(method="ce", split="val"))


def test_measure_refuses_a_protocol_without_test_images(cell):
    evaluation = Evaluation(protocols={"clt": {"train": "train_glt", "test": "test_new"}})
    with pytest.raises(Refused, match="protocol clt: the manifest has no image in split 'test_new'"):
        measure(cell().predictions, evaluation, Run(method="ce", split="train_glt"))


def test_an_evaluation_without_protocols_is_refused():
    with pytest.raises(Refused, match="protocols"):
        parse(Evaluation, {"protocols": {}}, "evaluate")
