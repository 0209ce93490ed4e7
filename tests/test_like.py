"""A benchmark like another: what is taken, what is merged, what is refused; and blocks that are left out."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ltpipe.benchmark import load
from ltpipe.config.parameters import load_blocks, merge
from ltpipe.config.spec import Refused

BASE = Path(__file__).resolve().parents[1] / "conf/base"

NAMES = {path.stem for path in (BASE / "parameters").glob("*.yml")}
# <benchmark>_<rho>, where <benchmark> exists
ANOTHER_RHO = sorted(name for name in NAMES if re.fullmatch(r"\w+_\d+", name) and name.rsplit("_", 1)[0] in NAMES)


@pytest.fixture
def folder(tmp_path, content):
    """A folder of benchmark files with the embedded benchmark in it; write(name, block) adds another."""
    (tmp_path / "parameters").mkdir()
    (tmp_path / "parameters/digits_glt.yml").write_text(yaml.safe_dump(content, sort_keys=False))

    def write(name, block, why="a test"):
        if why:
            block = {"reported": {"why": why}} | block
        (tmp_path / f"parameters/{name}.yml").write_text(yaml.safe_dump({name: block}))
        return tmp_path

    return write


def test_a_benchmark_takes_every_block_of_the_other(folder):
    specs = load(folder("other", {"like": "digits_glt"}, "embedded benchmark: nobody else reports on it"))
    other, digits = specs["other"].model_dump(), specs["digits_glt"].model_dump()
    assert {key for key in digits if other[key] != digits[key]} == {"claims"}
    assert digits["claims"] and not other["claims"]


def test_blocks_merge_key_by_key(folder):
    spec = load(folder("other", {"like": "digits_glt", "schedule": {"epochs": 3, "augment": {"flip": True}}}))["other"]
    assert (spec.schedule.epochs, spec.schedule.batch) == (3, 64)
    assert (spec.schedule.augment.flip, spec.schedule.augment.crop) == (True, 2)


def test_only_the_named_runs_are_taken_and_new_ones_are_added(folder):
    runs = {"focal": {"train": {"method": "focal", "split": "train_glt"}}}
    spec = load(folder("other", {"like": {"benchmark": "digits_glt", "runs": ["ce"]}, "runs": runs}))["other"]
    assert list(spec.runs) == ["ce", "focal"]


def test_a_reported_number_stays_with_its_own_benchmark(folder, content):
    paper = {"value": 90.0, "metric": "clt.accuracy.all", "tolerance": 1.0, "source": "table 2", "gates": True}
    content["digits_glt"]["runs"]["ce"]["reported"] = paper
    path = folder("other", {"like": "digits_glt"})
    (path / "parameters/digits_glt.yml").write_text(yaml.safe_dump(content))
    specs = load(path)
    assert specs["digits_glt"].runs["ce"].reported.value == 90.0
    assert specs["other"].runs["ce"].reported.value is None


def test_another_module_drops_the_options_of_the_first():
    base = {"model": {"backbone": "resnet", "options": {"depth": 18}, "image": 64}}
    assert merge(base, {"model": {"backbone": "cnn"}})["model"] == {"backbone": "cnn", "image": 64}
    assert merge(base, {"model": {"image": 32}})["model"]["options"] == {"depth": 18}
    assert merge(base, {"model": {"backbone": "resnet"}})["model"]["options"] == {"depth": 18}
    run = {"method": "crt", "options": {"lr": 0.2}, "start_from": "ce", "schedule": {"lr": 1}, "split": "train_glt"}
    assert merge({"decay_options": {"floor": 0.1}}, {"decay": "linear"}) == {"decay": "linear"}  # cosine's, unsaid
    assert merge({"decay_options": {"floor": 0.1}}, {"decay": "cosine"})["decay_options"] == {"floor": 0.1}
    assert merge(run, {"method": "ce"}) == {"method": "ce", "split": "train_glt"}


@pytest.mark.parametrize(
    ("base", "changes", "merged"),
    [
        ({"decay": {160: 0.01}}, {"decay": {90: 0.1}}, {"decay": {90: 0.1}}),  # numbers as keys: a value, not a block
        ({"decay": {160: 0.01}}, {"decay": "cosine"}, {"decay": "cosine"}),
        (
            {
                "optimiser": "adamw",
                "optimiser_options": {"eps": 1e-6},
                "decay": "linear",
                "decay_options": {"floor": 0.1},
            },
            {"optimiser": "sam", "decay": "cosine"},
            {"optimiser": "sam", "decay": "cosine"},
        ),
        ({"metrics": ["a", "b"]}, {"metrics": ["c"]}, {"metrics": ["c"]}),
        ({"threads": 1}, {"threads": None}, {"threads": None}),
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {}}),
        ({"seeds": {"s0": 0, "s1": 1}}, {"seeds": {"s7": 7}}, {"seeds": {"s7": 7}}),
        ({"protocols": {"clt": 1, "alt": 2}}, {"protocols": {"clt": 3}}, {"protocols": {"clt": 3}}),
    ],
)
def test_what_is_merged_and_what_is_replaced(base, changes, merged):
    assert merge(base, changes) == merged


def test_likeness_may_have_more_than_one_step(folder):
    folder("middle", {"like": "digits_glt", "schedule": {"epochs": 7}})
    assert load(folder("last", {"like": "middle", "schedule": {"batch": 32}}))["last"].schedule.epochs == 7


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"like": "digits_gtl"}, "other.like: no benchmark 'digits_gtl'; benchmarks: digits_glt, other"),
        ({"like": {"benchmark": "digits_glt", "runs": ["cee"]}}, "digits_glt has no run cee; its runs: ce, logit"),
        ({"like": {"benchmark": "digits_glt", "run": ["ce"]}}, "unknown key run; valid keys: benchmark, runs"),
        ({"like": ["digits_glt"]}, "other.like:"),
        ({"like": "other"}, "a circle, other -> other"),
        ({"like": "digits_glt", "schedule": {"epoch": 3}}, "unknown key epoch; valid keys: epochs, batch"),
        ({"like": "digits_glt", "scheduel": {}}, "unknown key scheduel; valid keys: source, "),
        (
            {"like": {"benchmark": "digits_glt", "runs": ["logit_adjust_post_hoc"]}},
            "start_from: no run 'ce'; runs: logit_adjust_post_hoc",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused(folder, block, message):
    path = folder("other", block)
    with pytest.raises(Refused) as refused:
        load(path)
    assert message in refused.value.message


def test_two_benchmarks_that_are_like_each_other_are_refused(folder):
    folder("first", {"like": "second"})
    with pytest.raises(Refused, match="a circle, "):
        load(folder("second", {"like": "first"}))


def test_only_the_files_that_are_referred_to_are_read(folder):
    path = folder("other", {"like": "digits_glt"})
    (path / "parameters/broken.yml").write_text("broken: [")
    assert load_blocks(path / "parameters", ["other"])["other"]["source"]["name"] == "digits"


@pytest.mark.parametrize("block", ["parity", "seeds", "claims", "reported"])
def test_a_block_with_its_defaults_may_be_left_out(folder, content, block):
    path = folder("other", {"like": "digits_glt"})
    content["digits_glt"].pop(block)
    for row in content["digits_glt"]["runs"].values():
        row["reported"] = {"why": "a test"}
    (path / "parameters/digits_glt.yml").write_text(yaml.safe_dump(content))
    spec = load(path, ["digits_glt"])["digits_glt"]
    assert spec.parity.images == 512
    assert spec.seeds == {f"s{seed}": seed for seed in range(3 if block == "seeds" else 12)}


def test_a_run_without_a_number_and_without_a_reason_is_refused(folder, content):
    content["digits_glt"].pop("reported")
    path = folder("other", {"like": "digits_glt"})
    (path / "parameters/digits_glt.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(Refused, match=r"runs ce, logit_adjust, .* have no reported number that gates: say why"):
        load(path, ["digits_glt"])


def test_show_prints_the_whole_and_the_whole_is_the_benchmark():
    done = subprocess.run(
        [sys.executable, "-m", "ltpipe", "generate", "--show", "cifar100_lt_10"],
        cwd=BASE.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)["cifar100_lt_10"]
    assert shown["schedule"]["epochs"] == 200 and shown["parity"]["images"] == 512 and "like" not in shown
    spec = load(BASE, ["cifar100_lt_10"])["cifar100_lt_10"]
    assert type(spec).model_validate(shown) == spec


@pytest.mark.parametrize("name", ANOTHER_RHO)
def test_a_benchmark_at_another_rho_is_short_and_differs_in_what_it_says(name):
    lines = (BASE / f"parameters/{name}.yml").read_text().splitlines()
    assert len(lines) <= 40
    base = name.rsplit("_", 1)[0]
    specs = load(BASE, [name, base])
    this, other = (specs[one].model_dump(exclude={"runs", "claims", "split", "expect"}) for one in (name, base))
    assert this == other
    assert specs[name].split.config().profile.rho == int(name.rsplit("_", 1)[1])


def test_a_reason_stays_with_its_own_benchmark(folder):
    with pytest.raises(Refused, match=r"runs ce, logit_adjust, .* have no reported number that gates: say why"):
        load(folder("other", {"like": "digits_glt"}, why=""))
