"""The headline ranks models: where test classes are unbalanced, none that ignores the rare classes comes first."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltpipe.evaluation.headline import choose_headline, headlines, rank
from ltpipe.evaluation.judge import Gate, find_misleading, judge
from ltpipe.evaluation.measure import Evaluation, flatten, split_metrics
from ltpipe.evaluation.report.text import render_markdown
from ltpipe.evaluation.reported import Reported
from ltpipe.evaluation.summary import summarise

# Test images of a user's natural split: (test images, correct by ce, correct by logit adjustment) of each class.
# ce answers as frequent classes do; measured shares of 1,500 pictures: ce 53.8 % accuracy and 0 % of the few.
CLASSES = [(100, 82, 48), (40, 14, 16), (20, 3, 8), (10, 0, 4), (6, 0, 2), (4, 0, 1)]


def predictions(correct):
    """A test split in which so many images of each class are classified correctly, and the others as class 0."""
    rows = []
    for label, ((images, *_), hits) in enumerate(zip(CLASSES, correct, strict=True)):
        wrong = 0 if label else 1
        rows += [(label, label if i < hits else wrong) for i in range(images)]
    labels, predicted = np.array(rows).T
    group = np.array(["many", "many", "medium", "medium", "few", "few"])[labels]
    columns = {"label": labels, "predicted": predicted, "group": group, "attribute": -1, "confidence": 0.5}
    return pd.DataFrame(columns)


def summary(run, rows):
    metrics = flatten({"lt": split_metrics(rows, len(CLASSES))})
    return {"run": run, "n": 1, "metrics": {k: {"mean": v, "std": None, "values": [v]} for k, v in metrics.items()}}


def test_a_model_that_ignores_the_rare_classes_is_not_first():
    ce = summary("ce", predictions([correct for _, correct, _ in CLASSES]))
    adjusted = summary("logit_adjust", predictions([correct for _, _, correct in CLASSES]))
    assert ce["metrics"]["lt.accuracy.all"]["mean"] > adjusted["metrics"]["lt.accuracy.all"]["mean"]
    headline = choose_headline("lt", [images for images, *_ in CLASSES])
    assert headline.path == "lt.recall.all"
    assert [s["run"] for s in rank([ce, adjusted], headline)] == ["logit_adjust", "ce"]


@given(st.lists(st.integers(0, 100), min_size=6, max_size=6))
@settings(max_examples=100)
def test_no_model_that_is_never_right_on_the_rare_half_beats_one_that_is_right_on_two_thirds_of_every_class(share):
    """The first may be right on all of the frequent half: that is 94 % of the images, and 50 % of the classes."""
    blind = [images * share[c] // 100 if c < 3 else 0 for c, (images, *_) in enumerate(CLASSES)]
    fair = [-(-2 * images // 3) for images, *_ in CLASSES]
    headline = choose_headline("lt", [images for images, *_ in CLASSES])
    ranked = rank([summary("blind", predictions(blind)), summary("fair", predictions(fair))], headline)
    assert ranked[0]["run"] == "fair"


def test_a_balanced_test_split_is_ranked_by_accuracy_as_in_the_papers():
    assert choose_headline("clt", [50, 50, 50]).path == "clt.accuracy.all"
    assert choose_headline("clt", [50, 50, 49]).path == "clt.recall.all"


def test_runs_that_a_protocol_does_not_measure_are_not_ranked():
    headline = choose_headline("alt", [5, 5])
    assert rank([summary("ce", predictions([1] * 6))], headline) == []


@pytest.fixture(scope="module")
def judged(cell, manifest, spec, state_of):
    """judged(...): a verdict on two cells that nothing was accepted of, and the details of the cells."""
    cells = [cell("ce", seed, 0.1) for seed in range(2)]
    measured = summarise(Reported(why="a test"), *(c.metrics for c in cells))
    state = state_of(measured, accepted=None)

    def make(**gate):
        block = Gate.model_validate({"primary": "glt.accuracy.all", "against": "nothing"} | gate)
        return judge(manifest, None, block, spec.evaluate, state, measured), [c.details for c in cells]

    return make


def test_the_report_has_a_ranking_of_each_protocol(judged, validation):
    verdict, details = judged()
    text = render_markdown(verdict, validation[0], [], headlines(details))
    assert "## Headline of clt" in text and "## Headline of glt" in text
    assert "so accuracy is also the mean recall" in text
    assert "| 1 | ce | 2 |" in text


def test_a_gate_on_accuracy_of_an_unbalanced_split_is_noted(judged, manifest):
    assert judged()[0]["notes"] == []
    rows = manifest[(manifest["split"] == "test_gbl") & (manifest["label"] == 0)].index[:-1]
    smaller = manifest.drop(index=rows)
    evaluation = Evaluation.model_validate({"protocols": {"glt": {"train": "train_glt", "test": "test_gbl"}}})
    (note,) = find_misleading(smaller, Gate(primary="glt.accuracy.all"), evaluation)
    assert note.startswith("glt.accuracy gates, but classes of the test split have 1 to ")
    assert note.endswith("gate on glt.recall.all")
    assert find_misleading(smaller, Gate(primary="glt.recall.all"), evaluation) == []
