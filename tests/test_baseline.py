"""The accepted file: what it stores of each image, and that a file which contradicts itself is refused."""

import base64
import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltpipe.config.spec import Refused
from ltpipe.evaluation.baseline import check_bits, pack_bits, read_accepted, seal, unpack_bits
from ltpipe.evaluation.measure import flatten


@given(st.lists(st.booleans(), max_size=70))
def test_bits_survive_packing(bits):
    assert unpack_bits(pack_bits(np.array(bits, dtype=bool)), len(bits)).tolist() == bits


def test_packed_bits_are_text_of_a_sixth_of_the_images():
    assert len(pack_bits(np.ones(2400, bool))) == 400


def test_a_baseline_names_benchmark_data_reason_code_and_recipe(cell, accept_cells):
    made = accept_cells([cell("ce", 0), cell("ce", 1), cell("logit_adjust", 0)])
    assert (made["benchmark"], made["reason"]) == ("digits_glt", "it was right")
    assert made["data"] == cell().metrics["data"]
    for run, entry in made["runs"].items():
        assert (entry["code"], entry["recipe"]) == tuple(cell(run).metrics[key] for key in ("code", "recipe"))
    assert list(made["runs"]["ce"]["seeds"]) == ["s0", "s1"]
    assert [made["runs"]["ce"]["seeds"][s]["seed"] for s in ("s0", "s1")] == [0, 1]


def test_mean_and_sample_deviation_are_over_the_seeds(cell, accept_cells):
    cells = [cell("ce", seed) for seed in range(3)]
    values = [c.metrics["protocols"]["glt"]["accuracy"]["few"] for c in cells]
    entry = accept_cells(cells)["runs"]["ce"]
    assert entry["n"] == 3
    assert entry["mean"]["glt.accuracy.few"] == pytest.approx(np.mean(values), abs=1e-6)
    assert entry["std"]["glt.accuracy.few"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert set(entry["mean"]) == set(entry["std"]) == set(flatten(cells[0].metrics["protocols"]))


def test_a_single_seed_has_no_deviation(cell, accept_cells):
    entry = accept_cells([cell("ce", 0)])["runs"]["ce"]
    assert entry["n"] == 1
    assert set(entry["std"].values()) == {None}


def test_the_bits_are_the_correctness_of_each_test_image_in_id_order(cell, accept_cells):
    made = cell("ce", 0)
    bits = accept_cells([made])["runs"]["ce"]["seeds"]["s0"]["correct"]
    for split in ("test_cbl", "test_gbl"):
        rows = made.predictions[made.predictions["split"] == split].sort_values("id")
        right = (rows["label"] == rows["predicted"]).tolist()
        assert unpack_bits(bits[split], len(rows)).tolist() == right


def test_the_bits_do_not_depend_on_the_order_of_the_predictions(cell, accept_cells):
    made = cell("ce", 0)
    shuffled = made._replace(predictions=made.predictions.sample(frac=1, random_state=0))
    assert accept_cells([shuffled]) == accept_cells([made])


def test_a_baseline_is_strict_json(cell, accept_cells):
    text = json.dumps(accept_cells([cell("ce", 0), cell("ce", 1)]), allow_nan=False)
    assert json.loads(text) == accept_cells([cell("ce", 0), cell("ce", 1)])


def test_cells_of_different_data_are_refused(cell, accept_cells):
    other = cell("ce", 1)
    other = other._replace(metrics=other.metrics | {"data": "0" * 16})
    with pytest.raises(Refused, match="different data"):
        accept_cells([cell("ce", 0), other])


@pytest.mark.parametrize("fact", ["cell", "seed", "data", "code", "recipe"])
def test_metrics_and_predictions_of_different_cells_are_refused(cell, accept_cells, fact):
    made = cell("ce", 0)
    other = made._replace(metrics=made.metrics | {fact: "digits_glt.ce.s7" if fact == "cell" else "other"})
    with pytest.raises(Refused, match=f"predictions and metrics are of different cells: {fact} "):
        accept_cells([other])


# a file that was edited


def test_what_accept_wrote_is_read_and_agrees_with_its_bits(accepted, manifest, spec):
    baseline = read_accepted(accepted, "digits_glt")
    check_bits(baseline, manifest, spec.evaluate)
    assert baseline.model_dump() == accepted


def at(path, value):
    """An edit: set the value at a path of keys; None deletes it."""

    def edit(content):
        *folders, last = path.split("/")
        for folder in folders:
            content = content[folder]
        content.pop(last) if value is None else content.update({last: value})

    return edit


def worse(content):
    """Lower the metric of one seed, and mean and deviation with it."""
    entry = content["runs"]["ce"]
    entry["seeds"]["s1"]["metrics"]["glt.accuracy.all"] -= 3
    values = [seed["metrics"]["glt.accuracy.all"] for seed in entry["seeds"].values()]
    entry["mean"]["glt.accuracy.all"] = float(np.mean(values))
    entry["std"]["glt.accuracy.all"] = float(np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (at("benchmark", "digits"), "it is of digits"),
        (at("runs/ce/n", 4), "ce has 3 seeds, not n 4"),
        (at("runs/ce/seeds/s2", None), "ce has 2 seeds, not n 3"),
        (at("runs/ce/mean/glt.accuracy.all", 50.0), "mean of ce does not follow from its seeds: glt.accuracy.all"),
        (at("runs/ce/std/glt.accuracy.all", 50.0), "std of ce does not follow from its seeds: glt.accuracy.all"),
        (at("runs/ce/std/glt.accuracy.all", None), "std of ce has other metrics than its seeds"),
        (at("runs/ce/seeds/s0/metrics/glt.accuracy.all", None), "seeds of ce have different metrics"),
        (at("runs/ce/seeds/s1/seed", 0), "two seeds of ce have one number"),
        (at("retired", {"ce": "a bad idea"}), "run ce is retired and accepted"),
        (at("runs/ce/seeds", {}), "at least 1 item"),
        (at("level", 0.5), "unknown key level"),
        (at("runs/ce/seeds/s1/weight", 2), "unknown key weight"),
        (at("reason", None), "reason"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_though_its_digest_is_right(accepted, edit, reason):
    edit(accepted)
    with pytest.raises(Refused) as refused:
        read_accepted(seal(accepted), "digits_glt")
    assert refused.value.message.startswith("conf/accepted/digits_glt.json")
    assert reason in refused.value.message


@pytest.mark.parametrize("edit", [at("reason", "it was better"), at("data", "0" * 16), at("digest", "0" * 12)])
def test_a_file_whose_digest_is_not_that_of_its_content_is_refused(accepted, edit):
    edit(accepted)
    with pytest.raises(Refused, match="its digest is not that of its content: it was edited"):
        read_accepted(accepted, "digits_glt")


def bits(change):
    """An edit of the bits of Test-CBL of the first seed; change: bytes -> bytes or text."""

    def edit(content):
        correct = content["runs"]["ce"]["seeds"]["s0"]["correct"]
        changed = change(base64.b64decode(correct["test_cbl"]))
        correct["test_cbl"] = changed if isinstance(changed, str) else base64.b64encode(changed).decode()

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (bits(lambda content: content[:-1]), "ce.s0: bits of test_cbl: 49 bytes"),
        (bits(lambda content: content + b"\x00"), "ce.s0: bits of test_cbl: 51 bytes"),
        (bits(lambda content: "!" * 68), "ce.s0: bits of test_cbl: not base64"),
        (bits(lambda content: "\u00e9" * 68), "ce.s0: bits of test_cbl: "),
        (
            bits(lambda content: bytes([content[0] ^ 1]) + content[1:]),
            "the bits of test_cbl do not give clt.accuracy.all",
        ),
        (at("runs/ce/seeds/s0/correct/test_cbl", None), "ce.s0: no bits of test_cbl"),
        (worse, "ce.s1: the bits of test_gbl do not give glt.accuracy.all"),
    ],
    ids=["short", "long", "not base64", "not ASCII", "one bit", "none", "worse"],
)
def test_bits_that_are_not_those_of_the_metrics_are_refused(accepted, manifest, spec, edit, reason):
    edit(accepted)
    baseline = read_accepted(seal(accepted), "digits_glt")
    with pytest.raises(Refused) as refused:
        check_bits(baseline, manifest, spec.evaluate)
    assert reason in refused.value.message


def test_bits_beyond_the_last_image_are_refused():
    padded = pack_bits(np.ones(16, bool))
    assert unpack_bits(padded, 16).all()
    for count in (13, 8, 17):
        with pytest.raises(ValueError, match=f"are not those of {count} images"):
            unpack_bits(padded, count)


def test_bits_that_are_swapped_between_images_of_two_groups_are_refused(accepted, manifest, spec):
    """The accuracy of all images is the same then, that of the groups is not."""
    rows = manifest[manifest["split"] == "test_cbl"].sort_values("id")
    correct = accepted["runs"]["ce"]["seeds"]["s0"]["correct"]
    right, few = unpack_bits(correct["test_cbl"], len(rows)), (rows["group"] == "few").to_numpy()
    one, other = np.flatnonzero(right & ~few)[0], np.flatnonzero(~right & few)[0]
    right[[one, other]] = right[[other, one]]
    correct["test_cbl"] = pack_bits(right)
    with pytest.raises(Refused, match=r"the bits of test_cbl do not give clt\.accuracy\.few"):
        check_bits(read_accepted(seal(accepted), "digits_glt"), manifest, spec.evaluate)


def test_sealing_does_not_change_what_it_seals(accepted):
    before = copy.deepcopy(accepted)
    assert seal(accepted) == before == accepted
