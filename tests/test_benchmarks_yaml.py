"""The benchmark files: the papers' rows are all there, recipes are the published ones, expectations fit the splits."""

import json
import re
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch

from ltpipe.benchmark import load
from ltpipe.data.sampling.class_sizes import exponential_sizes
from ltpipe.data.split import draw
from ltpipe.interface.phases import at
from ltpipe.interface.streams import Problem
from ltpipe.pages.benchmarks import read_header, render_benchmarks
from ltpipe.recipe.run import build_network
from ltpipe.recipe.schedule import Schedule

# the rows of the three papers' pages: benchmark, run, value in percent (errors as 100 - error), a target or not
ROWS = [
    ("cifar100_lt_10", "dro_lt", 63.41),
    ("cifar100_lt", "dro_lt", 47.33),
    ("imagenet_lt", "dro_lt", 53.5),
    ("imagenet_lt", "logit_adjust_adaptive", 51.3),
    ("imagenet_glt", "ride_ifl", 45.64),
    ("imagenet_glt", "randaug_ifl", 44.9),
    ("imagenet_glt", "logit_adjust_ifl", 40.52),
    ("imagenet_glt", "balanced_softmax_ifl", 40.08),
    ("imagenet_glt", "ldam", 38.54),
    ("imagenet_glt", "crt", 37.57),
]
METHODS = {
    "dro_lt": ["dro_lt"],
    "logit_adjust_adaptive": ["logit_adjust"],
    "ride_ifl": ["ifl", "ride"],
    "randaug_ifl": ["ifl", "randaug", "ce"],
    "logit_adjust_ifl": ["logit_adjust"],
    "balanced_softmax_ifl": ["ifl", "balanced_softmax"],
    "ldam": ["ldam"],
    "crt": ["crt"],
}
# read in no source (numbers that were recalled), or known to be wrong: never a value anywhere
NEVER = {72.34, 63.79, 72.64, 64.07, 75.5, 66.17, 75.57, 67.26, 74.31, 65.31, 54.99}
CIFAR = ["cifar10_lt", "cifar10_lt_50", "cifar10_lt_10", "cifar100_lt", "cifar100_lt_50", "cifar100_lt_10"]
TINY = ["tiny_imagenet_lt", "tiny_imagenet_lt_10"]
ALL = [
    *CIFAR,
    *TINY,
    "tiny_imagenet_glt",
    "imagenet_lt",
    "imagenet_glt",
    "imagenet_glt_pixels",
    "inaturalist2018",
    "places_lt",
    "mscoco_glt",
    "image_folder",
    "finetune_folder",
]


@pytest.fixture(scope="module")
def benchmarks(root):
    return load(root / "conf/base")


def test_every_benchmark_is_there(benchmarks):
    assert set(ALL) <= set(benchmarks)


@pytest.mark.parametrize(("name", "run", "value"), ROWS)
def test_a_row_of_the_papers_pages_is_a_run_that_says_what_it_is_used_for(benchmarks, name, run, value):
    row = benchmarks[name].runs[run]
    assert row.reported.value == value
    assert row.reported.metric == ("glt.accuracy.all" if "glt" in name else "lt.accuracy.all")
    assert "papers page" in row.reported.source
    assert row.reported.gates or row.reported.why
    choice, methods = row.train, []
    while choice is not None:
        methods.append(choice.method)
        choice = choice.base()
    assert methods == METHODS[run]


def test_logit_adjustment_plus_ifl_starts_from_ifl(benchmarks):
    row = benchmarks["imagenet_glt"].runs["logit_adjust_ifl"]
    assert (row.train.start_from, row.train.options) == ("ifl", {"form": "post_hoc"})


AUTHORS_IFL = {"scores": "epoch", "unseen": "zero", "centres": "normal", "prior": "data"}


@pytest.mark.parametrize("name", ["imagenet_glt", "mscoco_glt"])
def test_rows_of_the_glt_table_have_the_options_of_the_authors(benchmarks, name):
    spec = benchmarks[name]
    assert spec.model.head_bias is False
    for run, row in spec.runs.items():
        choice, ours = row.train, run.endswith("_ours")
        assert not ours or row.reported.value is None
        if choice.method == "ifl" and not ours:
            assert choice.options.items() >= AUTHORS_IFL.items(), run
            assert choice.config().steps == "reference"
            assert (choice.config().centre == "cosine") == (choice.options.get("centre_step") == "gradient")
        base = choice.base() or choice
        if base.method == "ride" and not ours:  # epoch > 80 in their code, which counts from 0
            assert base.options == {"reweight": 81}
    stage2 = [row.train for row in spec.runs.values() if row.train.method in ("crt", "lws")]
    assert all(choice.options == {"drift": True} for choice in stage2)


STEPS_60, STEPS_80 = {"decay": {60: 0.1, 80: 0.01}}, {"decay": {80: 0.01, 90: 1e-4}}
IFL_COSINE = AUTHORS_IFL | {"centre": "cosine", "centre_step": "gradient"}
LDAM_BASE = {"method": "ldam", "options": {"drw": 80}}
# science: section 3.2; every row of the table that trains: options, and the keys in which its recipe differs
GLT_ROWS = {
    "ce": ({}, {}),
    "mixup": ({}, {}),
    "randaug": ({}, {}),
    "balanced_softmax": ({}, {}),
    "logit_adjust_post_hoc": ({"form": "post_hoc"}, {}),
    "logit_adjust_ifl": ({"form": "post_hoc"}, {}),
    "crt": ({"drift": True}, {}),
    "lws": ({"drift": True}, {}),
    "crt_ifl": ({"drift": True}, {}),
    "lws_ifl": ({"drift": True}, {}),
    "tde": ({}, {}),
    "bbn": ({"epoch_offset": -1, "draw": "replacement"}, STEPS_60),
    "ldam": ({"drw": 80}, STEPS_80 | {"weight_decay": 2e-4}),
    "ride": ({"reweight": 81}, STEPS_60 | {"weight_decay": 2e-4}),
    "tade": ({}, {}),
    "ifl": (AUTHORS_IFL, {}),
    "balanced_softmax_ifl": (AUTHORS_IFL | {"base": "balanced_softmax"}, {}),
    "mixup_ifl": (AUTHORS_IFL | {"base": "mixup"}, {}),
    "randaug_ifl": (AUTHORS_IFL | {"base": "randaug"}, {}),
    "tade_ifl": (AUTHORS_IFL | {"base": "tade"}, {}),
    "ldam_ifl": (IFL_COSINE | {"base": LDAM_BASE}, STEPS_80),
    "ride_ifl": (IFL_COSINE | {"base": {"method": "ride", "options": {"reweight": 81}}}, STEPS_60),
}


def test_every_reported_row_of_imagenet_glt_has_its_options_and_its_recipe(benchmarks):
    spec = benchmarks["imagenet_glt"]
    reported = {name for name, row in spec.runs.items() if row.reported.value is not None}
    assert reported == set(GLT_ROWS) - {"ldam_ifl"}
    for name, (options, schedule) in GLT_ROWS.items():
        assert (spec.runs[name].train.options, spec.runs[name].train.schedule) == (options, schedule), name
    assert spec.runs["tde"].train.config().alpha == 2.0  # 1 on MSCOCO-GLT


def test_the_jpeg_rows_are_those_of_cifar10_lt(benchmarks):
    """Same method, options and recipe but for the number format and the threads."""
    jpeg, spec = benchmarks["cifar10_lt_jpeg"], benchmarks["cifar10_lt"]
    for name, row in jpeg.runs.items():
        assert row.train == spec.runs[name].train, name
        assert row.reported.value == spec.runs[name].reported.value, name
    assert jpeg.schedule == spec.schedule.model_copy(update={"precision": "bf16", "threads": 1})
    assert jpeg.model == spec.model


def test_bbn_of_glt_is_the_authors_resnet50(benchmarks):
    spec = benchmarks["imagenet_glt"]
    with torch.device("meta"):
        network, _ = build_network(spec.runs["bbn"].train, spec.model, Problem(np.arange(2000) % 1000, 1000))
    assert sum(p.numel() for p in network.backbone.parameters()) == 27_970_624


@pytest.mark.parametrize(
    ("run", "value", "start"),
    [("crt_ifl", 39.6, "ifl"), ("lws_ifl", 39.64, "ifl"), ("mixup_ifl", 43.0, None), ("tade_ifl", 43.47, None)],
)
def test_rows_of_the_poster_with_ifl(benchmarks, run, value, start):
    row = benchmarks["imagenet_glt"].runs[run]
    assert (row.reported.value, row.train.start_from) == (value, start)


def test_the_attribute_of_imagenet_glt_is_the_papers_and_another_one_expects_nothing(benchmarks, root):
    paper, pixels = benchmarks["imagenet_glt"], benchmarks["imagenet_glt_pixels"]
    assert paper.cluster.features.name == "torchvision" and not paper.cluster.features.options
    assert pixels.cluster.features.name == "pixels"
    assert all(row.reported.value is None for row in pixels.runs.values())
    header = read_header(root / "conf/base/parameters/imagenet_glt_pixels.yml")
    assert any(line.startswith("Expected: nothing.") for line in header)


@pytest.mark.parametrize("run", ["dro_lt", "logit_adjust_adaptive"])
def test_numbers_that_no_run_can_have_are_not_targets(benchmarks, run):
    reported = benchmarks["imagenet_lt"].runs[run].reported
    assert not reported.gates
    assert reported.why.startswith("not a target: ")


def test_no_recalled_number_is_a_value(benchmarks):
    values = {(n, r, row.reported.value) for n, spec in benchmarks.items() for r, row in spec.runs.items()}
    assert not {v for v in values if v[2] in NEVER}
    assert all(row.reported.value is None for row in benchmarks["mscoco_glt"].runs.values())


def test_what_gates_was_read_in_the_paper_and_does_not_select_on_the_test_set(benchmarks):
    gating = {(n, r) for n, spec in benchmarks.items() for r, row in spec.runs.items() if row.reported.gates}
    assert gating == {("cifar100_lt", "ce_la"), ("cifar100_lt", "logit_adjust"), ("cifar10_lt", "logit_adjust")}
    assert all("quoted" not in benchmarks[n].runs[r].reported.source for n, r in gating)


@pytest.mark.parametrize("name", ALL)
def test_a_file_begins_with_paper_command_cost_and_expectation(root, name):
    lines = "\n".join(read_header(root / f"conf/base/parameters/{name}.yml"))
    assert lines.startswith(f"{name}: ")
    assert f"--pipeline={name}" in lines
    assert "Cost" in lines and "Expected: " in lines
    assert name == "image_folder" or ("Paper: " in lines or "After " in lines)


@pytest.mark.parametrize("name", ALL)
def test_the_packed_images_are_the_networks_or_leave_room_for_random_boxes(benchmarks, name):
    """The evaluation of the papers: shorter side to 256 or 128, centre of 224 or 112."""
    packed, image = benchmarks[name].source.size, benchmarks[name].model.image
    assert packed == {224: 256, 112: 128}.get(image, image)
    assert bool(benchmarks[name].schedule.augment.resized_crop) == (packed > image)
    # boxes of packed squares are not those of the papers, except where the squares are whole pictures
    if packed > image and benchmarks[name].source.pictures == "squares":
        assert not any(row.reported.gates for row in benchmarks[name].runs.values())


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_runs_have_ldams_recipe(benchmarks, name):
    s = benchmarks[name].schedule
    assert (s.epochs, s.batch, s.lr, s.warmup, s.momentum, s.weight_decay) == (200, 128, 0.1, 5, 0.9, 2e-4)
    assert s.decay == {160: 0.01, 180: 0.0001}
    assert (s.augment.crop, s.augment.flip) == (4, True)


MENON = {"decay": {160: 0.1, 180: 0.01}, "weight_decay": 1e-4}
RIDE_STEPS = {"epochs": 100, "warmup": 5, "decay": {60: 0.1, 80: 0.01}, "weight_decay": 2e-4, "nesterov": True}
AUTHORS = [
    *((name, run, MENON) for name in CIFAR for run in ("ce_la", "logit_adjust")),
    *((name, "ride", {"weight_decay": 5e-4, "nesterov": True}) for name in CIFAR if name.startswith("cifar100")),
    ("imagenet_lt", "ride", RIDE_STEPS | {"batch": 256, "lr": 0.1, "accumulate": 1}),
    ("inaturalist2018", "ride", RIDE_STEPS | {"batch": 512, "lr": 0.2}),
]


@pytest.mark.parametrize(("name", "run", "recipe"), AUTHORS)
def test_a_row_has_the_recipe_of_its_authors(benchmarks, name, run, recipe):
    spec = benchmarks[name]
    whole = spec.schedule.with_changes(spec.runs[run].train.schedule)
    assert {key: getattr(whole, key) for key in recipe} == recipe
    others = set(Schedule.model_fields) - set(recipe) - {"augment"}
    assert all(getattr(whole, key) == getattr(spec.schedule, key) for key in others)
    rotate = 15 if run == "ride" and name in CIFAR else 0
    jitter = (0.4, 0.4, 0.4) if (name, run) == ("imagenet_lt", "ride") else None
    assert whole.augment == spec.schedule.augment.model_copy(update={"rotate": rotate, "colour_jitter": jitter})


@pytest.mark.parametrize("name", [name for name in CIFAR if name.startswith("cifar100")])
def test_rides_weights_begin_with_epoch_161_of_200(benchmarks, name):
    """Epochs are counted from 0, so the 161st is 160; `class_temperatures` of 0.05 and a diversity of -0.45."""
    config = benchmarks[name].runs["ride"].train.config()
    assert (at(config.reweight, 200), config.diversity, config.balance) == (160, -0.45, 0.05)
    assert at(config.reweight, 100) == 80


def test_a_reported_number_of_dro_lt_takes_the_options_of_its_code(benchmarks):
    rows = [(n, r, row) for n, spec in benchmarks.items() for r, row in spec.runs.items()]
    reported = [(n, r, row) for n, r, row in rows if row.train.method == "dro_lt" and row.reported.value is not None]
    assert {name for name, _, _ in reported} == {*CIFAR[3:], "imagenet_lt", "inaturalist2018"}
    for name, _, row in reported:
        config = row.train.config()
        assert (config.centroids, config.positive, config.epsilon_assignment) == ("stream", "none", "reference")
        assert config.radius_decay and config.weight_decay == 1e-4 and row.train.start_from == "ce"
        assert config.augment == ("reference" if name in CIFAR else "schedule")
        assert config.images == ("reference" if name in CIFAR else "capped")


def test_our_options_have_no_reported_number(benchmarks):
    ours = [row for spec in benchmarks.values() for run, row in spec.runs.items() if run.endswith(("_ours", "_aa"))]
    assert len(ours) > 20 and all(row.reported.value is None for row in ours)


@pytest.mark.parametrize("name", ["cifar10_lt", "cifar100_lt"])
def test_all_baselines_of_dro_lt_have_its_augmentation_from_the_first_epoch_on(benchmarks, name):
    spec = benchmarks[name]
    pairs = [("ce_aa", "dro_lt_aa"), ("ldam_drw_aa", "dro_lt_aa"), ("crt_aa", "dro_lt_ours")]
    assert all(spec._differing_recipes(*pair) == [] for pair in pairs)
    assert spec._differing_recipes("ldam_drw", "dro_lt") == ["augment"]
    assert {f"{run}_aa" for run in ("ce", "balanced_softmax", "logit_adjust", "ldam_drw", "crt", "dro_lt")} == {
        run for run in spec.runs if run.endswith("_aa")
    }


def images_of(spec, run):
    """Return the images that a run trains on and those that it only passes forward, in millions; its start excluded."""
    counts, train = spec.expect.plain_counts()["train"], spec.runs[run].train
    if isinstance(counts, dict):
        counts = filled(**{"total": 437_513} | counts)  # of iNaturalist, before val is cut
    method = train.build(Problem(np.repeat(np.arange(len(counts)), counts), len(counts)), train.start_from is not None)
    trained = forward = 0
    for number, phase in enumerate(method.phases(spec.schedule.with_changes(train.schedule).phase())):
        method.clock.phase = number
        shown = sum(stream.length or sum(counts) for stream in method.streams())
        trained += phase.epochs * shown
        if train.method == "dro_lt" and method.stage() == 2:
            forward += phase.epochs * (shown if method.config.centroids == "stream" else sum(counts))
    return trained / 1e6, forward / 1e6


def filled(*, total, classes, largest, smallest):
    """Return class sizes with this total, this largest and this smallest size."""
    rest = np.linspace(largest, smallest, classes).astype(int)
    rest[1:-1] = (total - largest - smallest) // (classes - 2)
    rest[1] += total - rest.sum()
    return rest.tolist()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cifar10_lt", "ce {ce:.2f} M; a dro_lt trains on {dro_lt:.2f} M more ({times:.1f} times ce) and passes "
         "{dro_lt_forward:.2f} M forward, dro_lt_ours {dro_lt_ours_forward:.2f} M"),
        ("cifar100_lt", "ce {ce:.2f} M; a dro_lt trains on {dro_lt:.2f} M more ({times:.1f} times ce) and passes "
         "{dro_lt_forward:.2f} M forward, dro_lt_ours {dro_lt_ours_forward:.2f} M"),
        ("imagenet_lt", "ce {ce:.2f} M; more: crt {crt:.2f} M, lws {lws:.2f} M, dro_lt and dro_lt_ours {dro_lt:.2f} M "
         "each ({times:.1f} times ce; 57.60 M without `images: capped`), and forward only {dro_lt_forward:.2f} M "
         "(dro_lt) or {dro_lt_ours_forward:.2f} M (dro_lt_ours). ride: {ride:.2f} M"),
        ("places_lt", "ce {ce:.2f} M; more: crt {crt:.2f} M, lws {lws:.2f} M, dro_lt {dro_lt:.2f} M ({times:.1f} times "
         "ce; 81.80 M without `images: capped`) and {dro_lt_forward:.2f} M forward only"),
        ("tiny_imagenet_lt", "ce {ce:.2f} M; dro_lt trains on {dro_lt:.2f} M more ({times:.1f} times ce) and passes "
         "{dro_lt_forward:.2f} M forward"),
    ],
)  # fmt: skip
def test_a_header_states_the_images_of_its_runs(root, benchmarks, name, said):
    spec = benchmarks[name]
    counted = {
        run: images_of(spec, run) for run in ("ce", "crt", "lws", "ride", "dro_lt", "dro_lt_ours") if run in spec.runs
    }
    figures = {run: trained for run, (trained, _) in counted.items()}
    figures |= {f"{run}_forward": forward for run, (_, forward) in counted.items()}
    header = " ".join(read_header(root / f"conf/base/parameters/{name}.yml"))
    assert f"Images: {said.format(**figures, times=figures['dro_lt'] / figures['ce'])}" in header


def test_dro_lt_on_inaturalist_costs_two_trainings_and_not_nine(benchmarks):
    spec = benchmarks["inaturalist2018"]
    times = [np.divide(images_of(spec, run), images_of(spec, "ce")[0]).round(1).tolist() for run in
             ("crt", "dro_lt", "dro_lt_ours", "ride")]  # fmt: skip
    assert times == [[0.4, 0.0], [2.0, 1.6], [2.0, 0.4], [1.1, 0.0]]


@pytest.mark.parametrize("name", ["imagenet_glt", "mscoco_glt"])
def test_glt_runs_have_the_published_recipe(benchmarks, name):
    s = benchmarks[name].schedule
    assert (s.epochs, s.batch, s.lr, s.decay, s.momentum, s.weight_decay) == (100, 256, 0.1, "cosine", 0.0, 5e-4)
    assert benchmarks[name].model.image == 112


@pytest.mark.parametrize("name", [*CIFAR, *TINY])
def test_a_tail_states_the_sizes_of_its_profile(benchmarks, name):
    spec = benchmarks[name]
    options, counts = spec.split.config(), spec.expect.class_counts
    sizes = exponential_sizes(options.profile.largest, options.profile.rho, spec.expect.classes)
    assert counts["train"] == sizes.tolist()
    # the header's words: at most 100 images of each class of CIFAR-10, 20 of the others, of those left out
    most = 100 if name.startswith("cifar10_") else 20
    assert (options.val.cut, options.val.per_class) == ("rest", most)
    assert counts["val"] == [min(most, options.profile.largest - n) for n in sizes]


def test_published_totals(benchmarks):
    totals = {name: sum(benchmarks[name].expect.class_counts["train"]) for name in [*CIFAR, *TINY, "places_lt"]}
    assert totals == {
        "cifar10_lt": 12_406,
        "cifar10_lt_50": 13_996,
        "cifar10_lt_10": 20_431,
        "cifar100_lt": 10_847,
        "cifar100_lt_50": 12_608,
        "cifar100_lt_10": 19_573,
        "tiny_imagenet_lt": 21_549,
        "tiny_imagenet_lt_10": 39_072,
        "places_lt": 62_500,
    }


@pytest.mark.parametrize(
    ("name", "classes", "each", "test"), [("cifar100_lt", 100, 500, "test"), (TINY[0], 200, 500, "val")]
)
def test_a_drawn_manifest_keeps_the_expectations(benchmarks, name, classes, each, test):
    from ltpipe.data.checks import rules

    labels = np.concatenate([np.repeat(np.arange(classes), each), np.repeat(np.arange(classes), 10_000 // classes)])
    image = [f"{i:06d}" for i in range(len(labels))]
    index = pd.DataFrame({"image": image, "source": image, "file": image, "label": labels, "attribute": -1})
    index["class_name"] = index["label"].astype(str)
    index["official"] = np.where(np.arange(len(labels)) < classes * each, "train", test)
    spec = benchmarks[name]
    manifest = draw(index, spec.split)
    assert not rules.class_counts(manifest, spec.expect.plain_counts(), classes)
    assert not rules.groups_of(manifest, **spec.expect.groups.model_dump())
    assert not rules.disjoint(manifest)


def test_the_page_of_benchmarks_is_what_the_files_say(root):
    assert (root / "docs/benchmarks.md").read_text() == render_benchmarks(root), "run: ltpipe generate"


@pytest.mark.parametrize(
    ("name", "metric"), [("tiny_imagenet_lt_32px", "lt.accuracy.all"), ("tiny_imagenet_glt_32px", "glt.accuracy.all")]
)
def test_what_a_header_says_is_reached_is_what_was_accepted(root, name, metric):
    runs = json.loads((root / f"conf/accepted/{name}.json").read_text())["runs"]
    lines = " ".join(read_header(root / f"conf/base/parameters/{name}.yml"))
    assert len(runs) == 3
    for run, found in runs.items():
        assert f"{run} {found['mean'][metric]:.1f} and {found['std'][metric]:.1f}" in lines
    if "(CLT " in lines:
        first, second, third = (f"{found['mean']['clt.accuracy.all']:.1f}" for found in runs.values())
        assert f"(CLT {first}, {second} and {third})" in lines


def test_what_the_header_of_digits_glt_all_says_is_reached_is_what_was_accepted(root):
    runs = json.loads((root / "conf/accepted/digits_glt_all.json").read_text())["runs"]
    lines = " ".join(read_header(root / "conf/base/parameters/digits_glt_all.yml"))
    for run in ("ce", "ride", "ifl", "ifl_ride"):
        assert f"{run} {runs[run]['mean']['glt.accuracy.all']:.1f}" in lines


def test_what_is_to_be_run_on_a_gpu_is_there(root):
    """The script prints its commands: of benchmarks, runs and programs that exist, in an order that can be run."""
    done = subprocess.run(["bash", "benchmarks/on_a_gpu.sh", "--dry"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    programs = re.findall(r"uv run python (\S+)", done.stdout)
    assert programs and all((root / program).exists() for program in programs)
    trained: dict[str, list[str]] = {}
    for name, run in re.findall(r"--benchmark conf/base/parameters/(\w+).yml --run (\w+)", done.stdout):
        start = load(root / "conf/base", [name])[name].runs[run].train.start_from
        assert start is None or start in trained[name], f"{name}.{run}"
        trained.setdefault(name, []).append(run)
    assert {"cifar10_lt", "tiny_imagenet_lt", "tiny_imagenet_lt_10"} == set(trained)


def test_a_wrong_step_for_a_gpu_is_refused(root):
    done = subprocess.run(["bash", "benchmarks/on_a_gpu.sh", "x"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "no step x; there is: tests speed cifar10 tiny\n"
    assert done.stdout == ""
