"""A benchmark file is checked whole before anything runs; each mistake is one message that says where and what else."""

import copy
from pathlib import Path

import pytest
import yaml

from ltpipe.benchmark import load
from ltpipe.config.spec import Refused

BASE = Path(__file__).resolve().parents[1] / "conf/base"
SHIPPED = sorted(path.stem for path in (BASE / "parameters").glob("*.yml"))


@pytest.fixture
def refusal(tmp_path, content):
    """refusal(path, value): the message where the value at a dotted path of the embedded benchmark is another."""

    def make(path, value):
        block = copy.deepcopy(content)
        *parents, last = path.split(".")
        here = block["digits_glt"]
        for key in parents:
            here = here[key]
        here[last] = value
        return message(tmp_path, yaml.safe_dump(block, sort_keys=False))

    return make


def message(folder, text, name="digits_glt"):
    """The one message with which a file of this text is refused."""
    (folder / "parameters").mkdir()
    (folder / f"parameters/{name}.yml").write_text(text)
    with pytest.raises(Refused) as refused:
        load(folder)
    assert refused.value.message.startswith(str(folder / f"parameters/{name}.yml"))
    return refused.value.message


def test_every_shipped_benchmark_loads():
    assert list(load(BASE)) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_benchmark_says_first_what_it_is_and_how_to_run_it(name):
    lines = (BASE / f"parameters/{name}.yml").read_text().splitlines()
    header = "\n".join(lines[: lines.index(f"{name}:")])
    assert header.startswith(f"# {name}: ")
    assert f"kedro run --pipeline={name}" in header


def test_the_embedded_benchmark_is_shipped():
    assert "digits_glt" in SHIPPED


def test_an_unknown_method_is_refused_with_the_valid_ones(refusal):
    found = refusal("runs.ce.train.method", "cee")
    assert "runs.ce.train.method" in found
    assert "no 'cee' in ltpipe.methods; valid names: " in found
    assert "logit_adjust" in found


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("source.name", "no 'x' in ltpipe.data.sources; valid names: "),
        ("split.kind", "no 'x' in ltpipe.data.splits; valid names: "),
        ("model.backbone", "no 'x' in ltpipe.backbones; valid names: "),
    ],
)
def test_an_unknown_module_is_refused_with_the_valid_ones(refusal, path, names):
    found = refusal(path, "x")
    assert f"  {path}: " in found
    assert names in found


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("runs.logit_adjust.train.options", "form, tau"),
        ("source.options", "noise, seed"),
        ("split.options", "largest, rho"),
        ("model.options", "width"),
    ],
)
def test_an_unknown_option_is_refused_with_the_valid_ones(refusal, path, known):
    found = refusal(path, {"taau": 1})
    assert "unknown key taau; valid keys: " in found
    assert known in found
    assert path.removesuffix(".options") in found


@pytest.mark.parametrize("path", ["scheduel", "schedule.epoch", "gate.metric", "seed", "runs.ce.reportd", "expect.x"])
def test_an_unknown_key_is_refused_with_the_valid_ones(refusal, path):
    assert f"unknown key {path.split('.')[-1]}; valid keys: " in refusal(path, 1)


@pytest.mark.parametrize("block", ["source", "split", "expect", "model", "schedule", "evaluate", "runs", "gate"])
def test_a_block_that_is_missing_is_named(tmp_path, content, block):
    del content["digits_glt"][block]
    assert f"  {block}: Field required" in message(tmp_path, yaml.safe_dump(content))


def test_starting_from_a_run_that_is_not_there_is_refused_with_the_runs(refusal):
    found = refusal("runs.logit_adjust_post_hoc.train.start_from", "cce")
    assert "runs.logit_adjust_post_hoc.train.start_from: no run 'cce'; runs: ce, logit_adjust" in found


def test_starting_in_a_circle_is_refused_with_the_circle(refusal):
    found = refusal("runs.ce.train.start_from", "logit_adjust_post_hoc")
    assert "a circle, ce <- logit_adjust_post_hoc <- ce" in found


def test_starting_from_itself_is_a_circle(refusal):
    assert "a circle, ce <- ce" in refusal("runs.ce.train.start_from", "ce")


def test_a_gated_metric_of_no_protocol_is_refused_with_the_protocols(refusal):
    found = refusal("gate.metrics", ["cltt.accuracy.all"])
    assert "gate.metrics name no protocol: ['cltt.accuracy.all']; protocols: clt, glt, alt" in found


def test_a_gated_metric_of_no_group_is_refused(refusal):
    assert "glt.accuracy.fwe" in refusal("gate.metrics", ["glt.accuracy.fwe"])


def test_a_reported_metric_of_no_protocol_is_refused(refusal):
    paper = {"value": 90, "metric": "cltt.accuracy.all", "tolerance": 1, "source": "table 2", "gates": True}
    assert "cltt.accuracy.all" in refusal("runs.ce.reported", paper)


@pytest.mark.parametrize(
    ("block", "value", "where"),
    [
        ("claims", [{"better": "logit_adjust", "than": "ce", "source": "table 2"}], "claims.0"),
        ("runs.ce.reported", {"value": 90, "tolerance": 1, "source": "table 2", "gates": True}, "runs.ce.reported"),
        ("reported", {"why": "nobody reports it"}, "reported"),
    ],
)
def test_a_metric_that_is_not_on_the_menu_is_refused_with_the_metrics(refusal, block, value, where):
    (value[0] if block == "claims" else value)["metric"] = "clt.acuracy.all"
    found = refusal(block, value)
    assert (
        f"  {where}.metric: 'clt.acuracy.all' is not <protocol>.<metric>.<part>; metrics: accuracy, ece, f1_of_averages"
        in found
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("evaluate.protocols.clt", {"train": "train_glt", "test": "test_gtl"}),
        ("evaluate.protocols.clt", {"train": "train_gtl", "test": "test_cbl"}),
    ],
)
def test_a_split_without_stated_counts_is_refused(refusal, path, value):
    unknown = next(split for split in value.values() if split.endswith("gtl"))
    assert f"splits that expect.class_counts does not state: ['{unknown}']" in refusal(path, value)


def test_a_run_that_no_protocol_judges_is_refused_before_it_is_trained(refusal):
    found = refusal("runs.ce.train.split", "train_gtl")
    assert "runs.ce.train.split: no protocol trains on 'train_gtl'; " in found


TRAINS, TESTS = "train splits: train_cbl, train_glt", "test splits: test_cbl, test_gbl"


@pytest.mark.parametrize(
    ("path", "split", "message"),
    [
        ("runs.ce.train.split", "test_cbl", f"test_cbl is no train split; {TRAINS}"),
        ("runs.ce.train.split", "val", f"val is no train split; {TRAINS}"),
        ("evaluate.protocols.clt.train", "test_cbl", f"test_cbl is no train split; {TRAINS}"),
        ("evaluate.protocols.clt.train", "val", f"val is no train split; {TRAINS}"),
        ("evaluate.protocols.clt.train", "training", f"training is no train split; {TRAINS}"),
        ("evaluate.protocols.clt.test", "train_glt", f"train_glt is no test split; {TESTS}"),
        ("evaluate.protocols.clt.test", "val", f"val is no test split; {TESTS}"),
        ("evaluate.protocols.clt.test", "", f" is no test split; {TESTS}"),
    ],
)
def test_a_split_of_another_role_is_refused_with_the_splits_of_the_right_one(refusal, path, split, message):
    assert f"  (top): {path}: {message}" in refusal(path, split)


def test_training_on_the_test_split_is_refused_where_protocol_and_runs_agree_on_it(tmp_path, content):
    block = content["digits_glt"]
    block["evaluate"] = {"protocols": {"clt": {"train": "test_cbl", "test": "test_cbl"}}}
    block["runs"] = {"ce": {"train": {"method": "ce", "split": "test_cbl"}}}
    block["gate"], block["claims"] = {"primary": "clt.accuracy.all"}, []
    assert f"evaluate.protocols.clt.train: test_cbl is no train split; {TRAINS}" in message(
        tmp_path, yaml.safe_dump(content)
    )


@pytest.mark.parametrize("split", ["test-cbl", "tests", "holdout", "Test", "cbl_test", "trainval"])
def test_a_split_whose_name_begins_with_no_role_is_refused(refusal, content, split):
    counts = content["digits_glt"]["expect"]["class_counts"]
    found = refusal("expect.class_counts", counts | {split: [1] * 10})
    assert "expect.class_counts: a split is called train, val or test, alone or followed by _ and more" in found
    assert found.endswith(f", not: {split}")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_benchmark_states_the_split_that_selects(name):
    assert "val" in load(BASE, [name])[name].expect.class_counts


def test_a_seed_of_a_run_that_is_not_there_is_refused_with_the_seeds(refusal):
    assert "runs.ce.seeds: no ['s77']; seeds: s0, s1, s2" in refusal("runs.ce.seeds", ["s0", "s77"])


def test_starting_from_a_seed_that_was_not_trained_is_refused(refusal):
    found = refusal("runs.ce.seeds", [f"s{seed}" for seed in range(12) if seed != 2])
    assert "runs.logit_adjust_post_hoc.seeds: ce, from which it starts, has no ['s2']" in found


def test_a_single_seed_that_gates_is_refused_and_one_that_does_not_loads(refusal, tmp_path, content):
    assert "runs.logit_adjust has one seed, whose noise is unknown" in refusal("runs.logit_adjust.seeds", ["s0"])
    content["digits_glt"]["runs"]["logit_adjust"]["seeds"] = ["s0"]
    content["digits_glt"]["gate"]["runs"] = ["ce"]
    (tmp_path / "parameters/digits_glt.yml").write_text(yaml.safe_dump(content))
    found = load(tmp_path)["digits_glt"]
    assert [found.seeds_of(run) for run in ("ce", "logit_adjust")] == [list(found.seeds), ["s0"]]


def test_a_gate_of_a_run_that_is_not_there_is_refused_with_the_runs(refusal):
    assert "gate.runs: no ['cee']; runs: ce, logit_adjust" in refusal("gate.runs", ["cee"])


def test_a_block_can_be_that_of_another_benchmark(tmp_path, content):
    parameters = tmp_path / "parameters"
    parameters.mkdir()
    other = {"other": content["digits_glt"] | {"split": "${digits_glt.split}"}}
    (parameters / "digits_glt.yml").write_text(yaml.safe_dump(content))
    (parameters / "other.yml").write_text(yaml.safe_dump(other))
    found = load(tmp_path)
    assert found["other"].split == found["digits_glt"].split


def test_a_reference_to_a_block_that_is_not_there_is_refused(tmp_path, content):
    content["digits_glt"]["split"] = "${digits.split}"
    (tmp_path / "parameters").mkdir()
    (tmp_path / "parameters/digits_glt.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(Refused, match=r"digits\.split"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["CE", "ce-1", "1ce", "ce.1", ""])
@pytest.mark.parametrize("block", ["runs", "seeds"])
def test_names_that_are_no_part_of_a_file_name_are_refused(refusal, content, block, name):
    entry = next(iter(content["digits_glt"][block].values()))
    found = refusal(block, {name: entry})
    assert f"names are lower-case letters, digits and _, not: {name}" in found


@pytest.mark.parametrize("block", ["runs", "seeds"])
def test_a_benchmark_has_a_run_and_a_seed(refusal, block):
    assert f"  {block}: " in refusal(block, {})


def test_images_of_another_size_than_the_model_takes_are_refused(refusal):
    assert "model.image 32 is larger than source.size 16" in refusal("model.image", 32)


def test_two_mistakes_are_both_in_the_message(tmp_path, content):
    content["digits_glt"]["schedule"]["epochs"] = 0
    content["digits_glt"]["runs"]["ce"]["train"]["method"] = "cee"
    found = message(tmp_path, yaml.safe_dump(content))
    assert "schedule.epochs" in found
    assert "runs.ce.train" in found


@pytest.mark.parametrize("text", ["", "3", "[]", "other: {}", "digits_glt: {}\nmore: {}"])
def test_a_file_holds_one_benchmark_of_its_own_name(tmp_path, text):
    assert "must hold one top-level key, digits_glt" in message(tmp_path, text)


def test_a_file_that_is_not_yaml_is_refused_with_its_line(tmp_path):
    found = message(tmp_path, "digits_glt:\n  runs: {ce: [\n")
    assert "not YAML" in found
    assert "line " in found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("digits_glt:\n  seeds: {s0: 0}\n  # other\n  seeds: {s0: 1}\n", ["digits_glt.seeds: lines 2, 4"]),
        ("digits_glt: {}\ndigits_glt: {}\n", ["digits_glt: lines 1, 2"]),
        (
            "digits_glt:\n  schedule: {decay: {60: 0.1, 80: 0.1, 60: 0.2}}\n",
            ["digits_glt.schedule.decay.60: lines 2, 2"],
        ),
        (
            "digits_glt:\n  claims:\n  - better: a\n    better: b\n",
            ["claims.0.better: lines 3, 4"],
        ),
        (
            "digits_glt:\n  runs: {ce: {a: 1, a: 1}}\n  runs: {}\n",
            ["runs.ce.a: lines 2, 2", "digits_glt.runs: lines 2, 3"],
        ),
    ],
)
def test_a_key_that_comes_twice_is_refused_with_its_lines(tmp_path, text, found):
    refused = message(tmp_path, text)
    assert "a key comes twice in one block" in refused
    assert all(line in refused for line in found)


def test_a_key_twice_in_the_embedded_benchmark_is_refused_where_yaml_would_take_the_last(tmp_path, content):
    text = yaml.safe_dump(content, sort_keys=False)
    doubled = text.replace("\n  schedule:\n", "\n  seeds:\n    s0: 0\n  schedule:\n")
    assert doubled != text and yaml.safe_load(doubled) == content
    assert "digits_glt.seeds: lines " in message(tmp_path, doubled)


def test_an_alias_is_no_key_that_comes_twice(tmp_path, content):
    text = yaml.safe_dump(content, sort_keys=False).replace("seed: 0", "seed: &zero 0", 1).replace("s0: 0", "s0: *zero")
    (tmp_path / "parameters").mkdir()
    (tmp_path / "parameters/digits_glt.yml").write_text(text)
    assert load(tmp_path)["digits_glt"].seeds["s0"] == 0


def test_an_empty_benchmark_is_refused_and_not_a_crash(tmp_path):
    assert "digits_glt" in message(tmp_path, "digits_glt:\n")


def test_a_folder_without_benchmarks_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"no benchmark in .*parameters: one \.yml file a benchmark"):
        load(tmp_path)


OWN = [
    ("ce", {"wd": 1}, "runs.ce.train.schedule:\n  (top): unknown key wd"),
    ("logit_adjust_post_hoc", {"lr": 0.2}, "runs.logit_adjust_post_hoc.train.schedule: logit_adjust does not use lr"),
]


@pytest.mark.parametrize(("run", "schedule", "found"), OWN)
def test_a_runs_own_recipe_is_checked_before_anything_runs(refusal, run, schedule, found):
    assert found in refusal(f"runs.{run}.train.schedule", schedule)


def test_a_run_that_gates_without_a_gated_metric_is_refused(tmp_path, content):
    content["digits_glt"]["runs"]["balanced"] = {"train": {"method": "ce", "split": "train_cbl"}}
    found = message(tmp_path, yaml.safe_dump(content))
    assert "runs.balanced trains on train_cbl, of which no gated metric is measured: gate on one of alt" in found


RECIPES = {
    "the same recipe": ({}, []),
    "another weight decay": ({"schedule": {"weight_decay": 9.0e-3}}, ["weight_decay"]),
    "another precision": ({"schedule": {"precision": "bf16"}}, ["precision"]),
    "micro-batches": ({"schedule": {"accumulate": 2}}, ["accumulate"]),
    "another network": ({"model": {"options": {"width": 99}}}, ["model"]),
    "another augmentation": ({"schedule": {"augment": {"cutout": 3}}}, ["augment"]),
    "an augmentation of the method's": ({"method": "dro_lt", "options": {"augment": "reference"}}, ["augment"]),
    "phases of the method's": ({"method": "dro_lt"}, []),
    "started from the same recipe": ({"method": "crt", "start_from": "ce"}, []),
    "started from another recipe": ({"method": "crt", "start_from": "longer"}, ["epochs"]),
    "trained nothing": ({"method": "tau_norm", "start_from": "ce"}, []),
    "trained nothing after another recipe": ({"method": "tau_norm", "start_from": "longer"}, ["epochs"]),
}


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("case", RECIPES)
def test_a_claim_compares_one_recipe_or_says_how_two_differ(tmp_path, content, case, told):
    train, differing = RECIPES[case]
    block = content["digits_glt"]
    block["runs"]["longer"] = {"train": {"method": "ce", "split": "train_glt", "schedule": {"epochs": 99}}}
    block["runs"]["other"] = {"train": {"method": "ce", "split": "train_glt"} | train}
    claim = {"better": "other", "than": "ce", "metric": "glt.accuracy.all", "source": "a paper"}
    block["claims"] = [claim | ({"recipes": "a reason"} if told else {})]
    if told or not differing:
        (tmp_path / "parameters").mkdir()
        (tmp_path / "parameters/digits_glt.yml").write_text(yaml.safe_dump(content, sort_keys=False))
        assert load(tmp_path)["digits_glt"].claims.root[0].recipes == ("a reason" if told else None)
        return
    found = message(tmp_path, yaml.safe_dump(content, sort_keys=False))
    wanted = f"differ in {', '.join(differing)}: compare runs of one recipe"
    assert f"claims: the recipes of other and ce {wanted}" in found
