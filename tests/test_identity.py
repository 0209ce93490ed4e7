"""Identities: what a result says it was made of, and that a result of another state is refused by its reader."""

import copy

import pytest

from ltpipe.config.spec import Refused
from ltpipe.data import identity as identity_of_data
from ltpipe.data.checks.validate import Crops
from ltpipe.data.identity import drawn_by
from ltpipe.evaluation.cells import check_cells
from ltpipe.evaluation.measure import measured_by
from ltpipe.recipe.cell import identity, recipe, require_cell
from ltpipe.state import state
from ltpipe.storage.identity import digest, digest_blocks, digest_bytes, require
from ltpipe.storage.provenance import import_closure

NAME = "digits_glt.ce.s0"


# digests


def test_a_digest_does_not_depend_on_the_order_of_keys_and_changes_with_every_value():
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": [2, None], "a": 1})
    values = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": None}, {}, [], None]
    assert len({digest(value) for value in values}) == len(values)
    assert digest_bytes(b"") != digest_bytes(b"\0")


def test_a_block_has_the_digest_of_its_values(spec):
    blocks = {"evaluate": spec.evaluate, "parity": spec.parity, "cluster": None}
    plain = {"evaluate": spec.evaluate.model_dump(), "parity": spec.parity.model_dump(), "cluster": None}
    assert digest_blocks(blocks) == digest_blocks(plain)
    assert digest_blocks(blocks) != digest_blocks(plain | {"parity": None})


# require


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        ({"a": 2, "b": {"c": 1, "d": 2}}, "a is 2, not 1"),
        ({"b": {"c": 1, "d": 2}}, "a is None, not 1"),
        ({"a": 1, "b": {"c": 1, "d": 3}}, "b.d is 3, not 2"),
        ({"a": 2, "b": {"c": 1}}, "a is 2, not 1; b.d is None, not 2"),
        ({"a": 1, "b": {"c": 1, "d": 2, "e": 5}}, "b.e is 5, not None"),
    ],
)
def test_what_differs_is_said_key_by_key_with_the_remedy(found, difference):
    with pytest.raises(Refused) as refused:
        require("the model", found, {"a": 1, "b": {"c": 1, "d": 2}}, "Make it again")
    assert refused.value.message == f"the model is of another state: {difference}. Make it again"


def test_what_was_not_asked_for_may_differ():
    require("the model", {"a": 1, "more": 2}, {"a": 1}, "Make it again")


def test_a_cell_is_refused_with_the_command_that_makes_it_again():
    with pytest.raises(Refused) as refused:
        require_cell("the checkpoint", {"cell": NAME, "code": "old"}, {"cell": NAME, "code": "new"})
    assert refused.value.message == (
        f"the checkpoint of {NAME} is of another state: code is old, not new. "
        f"Make it again: kedro run --pipeline=digits_glt --namespaces={NAME}, or dvc repro"
    )


# recipes and code


@pytest.fixture
def blocks(spec):
    """Arguments of `recipe`."""
    return {"run": spec.runs["ce"].train, "schedule": spec.schedule, "model": spec.model}


@pytest.mark.parametrize(
    ("block", "change"),
    [
        ("run", {"split": "train_cbl"}),
        ("run", {"method": "focal"}),
        ("run", {"start_from": "ride"}),
        ("run", {"schedule": {"lr": 0.01}}),
        ("schedule", {"epochs": 61}),
        ("schedule", {"weight_decay": 0.0}),
        ("model", {"options": {"width": 8}}),
        ("model", {"mean": (0.4, 0.5, 0.5)}),
    ],
)
def test_a_recipe_changes_with_whatever_decides_the_weights(blocks, block, change):
    changed = blocks | {block: blocks[block].model_copy(update=change)}
    assert recipe(**changed) != recipe(**blocks)
    assert identity(NAME, **changed, seed=0)["recipe"] != identity(NAME, **blocks, seed=0)["recipe"]


@pytest.mark.parametrize("change", [{"save_every": 7}, {"save_minutes": None}, {"resident": 0.5}])
def test_what_does_not_change_a_weight_is_not_part_of_the_recipe(blocks, change):
    changed = blocks | {"schedule": blocks["schedule"].model_copy(update=change)}
    assert identity(NAME, **changed, seed=0) == identity(NAME, **blocks, seed=0)


def test_the_code_of_a_cell_is_that_of_its_method(blocks):
    other = blocks | {"run": blocks["run"].model_copy(update={"method": "ride"})}
    assert identity(NAME, **other, seed=0)["code"] != identity(NAME, **blocks, seed=0)["code"]


def test_a_manifest_is_of_its_parameters_and_code_and_not_of_the_schedule(spec, data_identity):
    drawn = drawn_by(spec.source, spec.split, spec.expect)
    assert {key: data_identity[key] for key in drawn} == drawn
    other = spec.split.model_copy(update={"options": dict(spec.split.options) | {"seed": 1}})
    changed = drawn_by(spec.source, other, spec.expect)
    assert (changed["parameters"] != drawn["parameters"]) and changed["code"] == drawn["code"]


@pytest.mark.parametrize(
    ("pictures", "crops", "added"),
    [
        ("squares", None, set()),
        ("files", None, {"originals"}),
        ("squares", {"upsampled": "whole"}, {"originals", "crops"}),  # the second imports the first
        ("files", {"upsampled": "whole"}, {"originals", "crops"}),
    ],
)
def test_the_code_of_whole_pictures_counts_only_where_it_is_used(pictures, crops, added, spec, monkeypatch):
    monkeypatch.setattr(identity_of_data, "code_version", lambda modules: " ".join(import_closure(modules)))
    source = spec.source.model_copy(update={"pictures": pictures})
    expect = spec.expect.model_copy(update={"crops": crops and Crops(**crops)})
    code = drawn_by(source, spec.split, expect)["code"].split()
    assert {"ltpipe.data.originals", "ltpipe.data.crops"} & set(code) == {f"ltpipe.data.{name}" for name in added}


def test_a_measurement_is_of_protocols_and_parity(spec):
    usual = measured_by(spec.evaluate, spec.parity)
    assert usual == measured_by(spec.evaluate, spec.parity.model_dump())
    fewer = {name: p for name, p in spec.evaluate.protocols.items() if name != "alt"}
    assert measured_by(spec.evaluate.model_copy(update={"protocols": fewer}), spec.parity) != usual
    assert measured_by(spec.evaluate, spec.parity.model_copy(update={"images": 1})) != usual


# the state


@pytest.fixture
def parameters(spec):
    return spec.model_dump()


@pytest.fixture
def present(parameters, data_identity):
    """The state of the embedded benchmark, without an accepted baseline."""
    return state(parameters, data_identity, None, benchmark="digits_glt")


def test_a_state_asks_of_every_cell_what_the_stages_write(present, spec, cell):
    assert list(present["cells"]) == [f"digits_glt.{run}.{seed}" for run in spec.runs for seed in spec.seeds]
    for run in spec.runs:
        metrics, asked = cell(run, 3).metrics, present["cells"][f"digits_glt.{run}.s3"]
        assert asked == {key: metrics[key] for key in ("cell", "seed", "code", "recipe", "data", "measured")}
    assert present["starts"]["digits_glt.logit_adjust_post_hoc.s3"] == "digits_glt.ce.s3"
    assert len(present["starts"]) == len(spec.seeds)


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (lambda p: p["gate"].update(level=0.5), {"parameters"}),
        (lambda p: p["schedule"].update(epochs=3), {"parameters", "cells"}),
        (lambda p: p["schedule"].update(save_every=3), {"parameters"}),
        (lambda p: p["parity"].update(images=3), {"parameters", "cells"}),
        (lambda p: p["seeds"].update(s0=99), {"parameters", "cells", "seeds"}),
    ],
    ids=["gate", "schedule", "scratch", "parity", "seeds"],
)
def test_a_state_changes_with_the_parameters(parameters, present, data_identity, edit, parts):
    changed = copy.deepcopy(parameters)
    edit(changed)
    after = state(changed, data_identity, None, benchmark="digits_glt")
    assert {key for key in present if after[key] != present[key]} == parts | {"digest"}


def test_a_state_changes_with_the_accepted_baseline_and_the_data(parameters, present, data_identity, accepted):
    after = state(parameters, data_identity, accepted, benchmark="digits_glt")
    assert {key for key in present if after[key] != present[key]} == {"accepted", "digest"}
    after = state(parameters, data_identity | {"data": "other"}, None, benchmark="digits_glt")
    assert {key for key in present if after[key] != present[key]} == {"cells", "digest"}


@pytest.mark.parametrize("fact", ["parameters", "code"])
def test_a_manifest_of_other_parameters_or_code_is_refused(parameters, data_identity, fact):
    with pytest.raises(Refused, match=f"the manifest of digits_glt is of another state: {fact} is old, not .* Draw it"):
        state(parameters, data_identity | {fact: "old"}, None, benchmark="digits_glt")


# cells of a state


@pytest.fixture
def found(cell, state_of):
    """(state, cells) of ce and the run that starts from it, two seeds each."""
    runs = [{"run": run, "seeds": [0, 1]} for run in ("ce", "logit_adjust_post_hoc")]
    return state_of(*runs), [dict(cell(run["run"], seed).metrics) for run in runs for seed in run["seeds"]]


def test_the_cells_of_a_state_are_accepted_in_any_order(found):
    present, cells = found
    check_cells(present, cells)
    check_cells(present, cells[::-1])


@pytest.mark.parametrize("fact", ["seed", "code", "recipe", "data", "measured"])
def test_a_cell_of_another_state_is_refused(found, fact):
    present, cells = found
    cells[1][fact] = "other"
    with pytest.raises(Refused, match=rf"digits_glt\.ce\.s1 is of another state: {fact} is other, not "):
        check_cells(present, cells)


def test_a_cell_that_is_missing_or_too_much_is_refused(found, cell):
    present, cells = found
    for wrong, name in ((cells[1:], "ce.s0"), ([*cells, cell("ce", 2).metrics], "ce.s2")):
        with pytest.raises(Refused, match=f"the cells are not those of digits_glt: digits_glt.{name} is missing or"):
            check_cells(present, wrong)


@pytest.mark.parametrize(("cell_number", "fact"), [(2, "started_from"), (0, "checkpoint")])
def test_a_cell_that_started_from_another_checkpoint_is_refused(found, cell_number, fact):
    present, cells = found
    cells[cell_number][fact] = "other"
    with pytest.raises(
        Refused, match=r"digits_glt\.logit_adjust_post_hoc\.s0 started from checkpoint .* train it again"
    ):
        check_cells(present, cells)
