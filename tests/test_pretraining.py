"""A benchmark whose images the pretraining has seen is warned of, by the name of the set."""

import pytest

from ltpipe.config.spec import menu_names
from ltpipe.evaluation.pretraining import HOLDING, warn_of_seen
from ltpipe.models.model import Model
from ltpipe.state import state


@pytest.mark.parametrize(
    ("source", "seen", "named"),
    [
        ("imagenet2012", "in1k", "in1k"),
        ("imagenet2012", "in12k, in1k", "in12k"),
        ("imagenet2012", "a part of ImageNet-1k (own crops)", "imagenet1k"),
        ("tiny_imagenet", "lvd142m", "lvd142m"),
        ("imagenet2012", "in1k-ft", "in1kft"),
        ("imagenet2012", "imagenet-1k-v2", "imagenet1kv2"),
        ("imagenet2012", "ILSVRC", "ilsvrc"),
        ("tiny_imagenet", "tiny-imagenet", "tinyimagenet"),
        ("cifar10", "CIFAR-10", "cifar10"),
        ("places365", "Places365", "places365"),
    ],
)
def test_a_set_that_holds_images_of_the_benchmark_is_named(source, seen, named):
    lines = warn_of_seen(source, {"scratch": None, "tuned": seen, "adjusted": seen})
    assert f"tuned, adjusted: pretrained on {named}, which holds images of this benchmark ({source})" in lines[0]
    assert all("scratch" not in line for line in lines)


@pytest.mark.parametrize(
    ("source", "seen"), [("imagenet2012", None), ("image_folder", "in1k"), ("cifar10", "in1k"), ("cifar10", "cifar100")]
)
def test_nothing_is_said_of_other_images(source, seen):
    assert warn_of_seen(source, {"ce": seen}) == []


def test_only_sources_that_exist_are_listed():
    assert set(HOLDING) <= set(menu_names("ltpipe.data.sources"))


def test_the_verdict_has_the_warning_of_the_runs_that_start_from_weights(spec, data_identity, monkeypatch):
    monkeypatch.setitem(HOLDING, "digits", frozenset({"mnist"}))
    monkeypatch.setattr(Model, "seen", lambda self: "mnist")
    warned = state(spec.model_dump(), data_identity, None, benchmark="digits_glt")
    assert "ce, logit_adjust, logit_adjust_post_hoc: pretrained on mnist" in warned["warnings"][0]
