"""Every benchmark's split meets its block `expect`, and a change of any integer of this block is noticed.

digits is read from its source, CIFAR from generated files in the official layout, and Tiny ImageNet from the folder
that LTPIPE_TINY_IMAGENET names. For the other benchmarks an index is generated with the class sizes that papers state.
"""

import base64
import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ltpipe.benchmark import load
from ltpipe.config.spec import Refused, parse
from ltpipe.data.acquire import cifar_binary
from ltpipe.data.checks import rules
from ltpipe.data.checks.validate import Expect, validate
from ltpipe.data.fetch import fetch
from ltpipe.data.sampling.class_sizes import exponential_sizes
from ltpipe.data.sources import cifar10, cifar100
from ltpipe.data.split import admit, draw
from ltpipe.storage.manifest import fingerprint

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in (ROOT / "conf/base/parameters").glob("*.yml"))
# hundreds of thousands of images
BIG = {"imagenet_glt", "imagenet_glt_pixels", "inaturalist2018", "mscoco_glt"}
BENCHMARKS = [pytest.param(name, marks=[pytest.mark.slow] * (name in BIG)) for name in NAMES]
SPECS = load(ROOT / "conf/base")
ATTRIBUTES = [case for case in BENCHMARKS if SPECS[case.values[0]].expect.attribute_counts]
REAL = os.environ.get("LTPIPE_TINY_IMAGENET", "")
# sizes of ImageNet's smaller classes; the others have 1,300 images (732 to 1,300 per class, 1,281,167 together)
SMALL = np.linspace(1299, 732, 105).astype(int)


@pytest.fixture(scope="module")
def specs():
    return load(ROOT / "conf/base")


def made(official, clusters=False):
    """Return an index with these class sizes in each official split, mixed in file order, one file per image."""
    random = np.random.RandomState(0)
    parts = [(name, random.permutation(np.repeat(np.arange(len(sizes)), sizes))) for name, sizes in official.items()]
    labels = np.concatenate([part for _, part in parts])
    image = [f"{name}{i:07d}" for name, part in parts for i in range(len(part))]
    return pd.DataFrame(
        {
            "image": image,
            "source": image,
            "file": [str(i) for i in range(len(image))],
            "label": labels,
            "class_name": [f"class {label}" for label in labels],
            "attribute": random.choice(6, len(labels), p=[0.36, 0.26, 0.15, 0.11, 0.07, 0.05]) if clusters else -1,
            "official": np.repeat([name for name, _ in parts], [len(part) for _, part in parts]),
        }
    )


def filled(total, classes, largest, smallest):
    """Return sizes of `classes` classes with this total, largest and smallest, in random order."""
    sizes = np.maximum(np.rint(largest * (smallest / largest) ** (np.arange(classes) / (classes - 1))), smallest)
    sizes = sizes.astype(int)
    while (missing := total - sizes.sum()) != 0:
        free = np.flatnonzero((sizes < largest - 1) & (sizes > smallest + 1))[: abs(missing)]
        sizes[free] += np.sign(missing)
    return np.random.RandomState(0).permutation(sizes)


def imagenet():
    sizes = np.full(1000, 1300)
    sizes[895:] = SMALL
    while (missing := 1_281_167 - sizes.sum()) > 0:
        sizes[np.flatnonzero((sizes < 1300) & (sizes > 732))[:missing]] += 1
    return sizes


def coco():
    """Return an index of 188,426 patches in 29 classes (65,000, 7,666 ... 1,358), with the published pool of 153,273.

    The sizes between are invented. Class 20 has more patches than the pool takes of it, class 5 fewer.
    """
    flat = np.repeat([65_000, 7666, 4400, 1358], [1, 1, 26, 1])
    steep = np.concatenate([[65_000], np.rint(np.linspace(7666, 1358, 28)).astype(int)])
    sizes = np.rint(0.54 * flat + 0.46 * steep).astype(int)
    sizes[20] += 188_426 - sizes.sum()
    pool = np.minimum(exponential_sizes(64_600, 200, 29), sizes - 400)
    sizes[[5, 20]] += np.array([1, -1]) * (153_273 - pool.sum())
    index = made({"train": sizes})
    positive = np.random.RandomState(1).rand(len(index), 24) < 0.2
    index.attrs["attribute_names"] = [f"a{i}" for i in range(24)]
    index.attrs["attribute_bits"] = base64.b64encode(np.packbits(positive, axis=1).tobytes()).decode()
    return index


def tiny():
    return {"train": [500] * 200, "val": [50] * 200}


MADE = {
    "tiny_imagenet_lt": lambda spec: made(tiny()),
    "tiny_imagenet_lt_10": lambda spec: made(tiny()),
    "tiny_imagenet_lt_32px": lambda spec: made(tiny()),
    "tiny_imagenet_glt": lambda spec: made(tiny(), clusters=True),
    "tiny_imagenet_glt_32px": lambda spec: made(tiny(), clusters=True),
    "imagenet_glt": lambda spec: made({"train": imagenet()}, clusters=True),
    "imagenet_glt_pixels": lambda spec: made({"train": imagenet()}, clusters=True),
    "imagenet_lt": lambda spec: made(
        {"train": filled(115_846, 1000, 1280, 5), "val": [20] * 1000, "test": [50] * 1000}
    ),
    "places_lt": lambda spec: made(
        {"train": spec.expect.class_counts["train"], "val": [20] * 365, "test": [100] * 365}
    ),
    "inaturalist2018": lambda spec: made({"train": filled(437_513, 8142, 1000, 2), "val": [3] * 8142}),
    "mscoco_glt": lambda spec: coco(),
    "image_folder": lambda spec: made({"": [100] * 10}),
    "finetune_folder": lambda spec: made({"": [100] * 10}),
}


def cifar_files(folder, module, classes):
    """Write files in the official binary layout, one pixel per image; classes are as frequent as in the real files."""
    layout = module.LAYOUT
    random = np.random.RandomState(0)
    folder = folder / layout.folder
    folder.mkdir(parents=True)
    labels = np.concatenate([random.permutation(np.arange(n) % classes) for n in (50_000, 10_000)]).astype(np.uint8)
    records = np.zeros((60_000, layout.label_bytes + 3), np.uint8)
    records[:, layout.label_bytes - 1] = labels
    files = [*layout.train, layout.test]
    cuts = [10_000 * i for i in range(1, 6)] if len(files) == 6 else [50_000]
    for name, part in zip(files, np.split(records, cuts), strict=True):
        (folder / name).write_bytes(part.tobytes())
    (folder / layout.names).write_text("".join(f"class{i}\n" for i in range(classes)))


@pytest.fixture(scope="module")
def manifests(specs, tmp_path_factory):
    """Return a function: name of a benchmark -> its manifest, and the folder of its raw files (cached)."""

    @cache
    def make(name):
        spec, raw = specs[name], tmp_path_factory.mktemp(name)
        if name in MADE:
            index = MADE[name](spec)
        elif spec.source.name in ("cifar10", "cifar100"):
            classes = spec.expect.classes
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cifar_binary, "PIXELS", 3)
                cifar_files(raw, {10: cifar10, 100: cifar100}[classes], classes)
                index = fetch(spec.source, raw)[0]
        elif spec.source.reads_outside():
            pytest.skip(f"{name}: the images of source {spec.source.name} are in a folder of the user's")
        else:
            index = fetch(spec.source, raw)[0]
        return draw(index, spec.split), raw

    return make


def violations(manifest, expect):
    """Return the violations of all rules that use the integers of `expect`."""
    ranks = expect.ranks or len(next(iter(expect.attribute_counts.values()), []))
    return [
        *rules.class_counts(manifest, expect.plain_counts(), expect.classes),
        *rules.attribute_counts(manifest, expect.attribute_counts),
        *rules.every_rank(manifest, expect.every_rank, ranks),
        *rules.groups_of(manifest, **expect.groups.model_dump()),
        *rules.every_class(manifest, expect.classes),
    ]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_split_of_a_benchmark_meets_its_expectations(name, specs, manifests):
    manifest = manifests(name)[0]
    assert violations(manifest, specs[name].expect) == []
    assert rules.disjoint(manifest) == rules.one_role(manifest) == rules.one_row(manifest) == []
    assert rules.one_name(manifest) == []


@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_integer_of_the_class_counts_is_checked(name, change, specs, manifests):
    """Change all integers at once: each of them must give one violation that names it."""
    manifest, expect = manifests(name)[0], specs[name].expect
    for split, counts in expect.plain_counts().items():
        if isinstance(counts, dict):
            wrong = {key: value + change for key, value in counts.items() if value + change >= 0}
            named = [f"{split} {key}: {counts[key]}, not {value}" for key, value in wrong.items()]
        else:
            wrong = [value + change for value in counts]
            named = [f"{split} class {c}: {n} images, not {n + change}" for c, n in enumerate(counts)]
        lines = rules.class_counts(manifest, {split: wrong}, expect.classes)
        assert [re.sub(r" \(.*\):", ":", line) for line in lines] == named  # without the name of the class


@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_integer_of_the_attribute_counts_is_checked(name, change, specs, manifests):
    manifest, expect = manifests(name)[0], specs[name].expect
    assert expect.attribute_counts
    for split, counts in expect.attribute_counts.items():
        lines = rules.attribute_counts(manifest, {split: [value + change for value in counts]})
        assert lines == [f"{split} attribute rank {r}: {n} images, not {n + change}" for r, n in enumerate(counts)]
    assert rules.every_rank(manifest, expect.every_rank, 1 + max(map(len, expect.attribute_counts.values())))


@pytest.mark.parametrize("limit", ["many", "medium"])
@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_changed_limit_of_the_groups_is_noticed_if_it_moves_a_class(name, change, limit, specs, manifests):
    """By rank, a changed limit always moves a class; by count, only if a class has exactly that many images."""
    manifest, expect = manifests(name)[0], specs[name].expect
    splits = [expect.groups.split] if isinstance(expect.groups.split, str) else expect.groups.split
    sizes = np.bincount(manifest.loc[manifest["split"].isin(splits), "label"], minlength=expect.classes)
    if getattr(expect.groups, limit) + change < 1:
        pytest.skip(f"{limit} is 1, and no limit may be 0")
    wrong = expect.groups.model_copy(update={limit: getattr(expect.groups, limit) + change})
    moved = (wrong.of_classes(sizes) != expect.groups.of_classes(sizes)).any()
    assert bool(rules.groups_of(manifest, **wrong.model_dump())) == moved
    assert moved or expect.groups.by == "count"


@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_another_number_of_classes_is_refused(name, change, specs, manifests):
    block = specs[name].expect.model_dump()
    block["class_counts"] = specs[name].expect.plain_counts()
    wrong = block | {"classes": block["classes"] + change}
    try:
        expect = parse(Expect, wrong, name)
    except Refused as refused:
        assert f"must state {wrong['classes']} classes" in refused.message
    else:
        assert validate(*manifests(name), expect)[0]["success"] is False


@pytest.mark.parametrize("name", ["cifar10_lt", "tiny_imagenet_glt", "digits_glt"])
def test_a_manifest_is_admitted_and_is_refused_after_a_change_of_one_integer(name, specs, manifests):
    (manifest, raw), expect = manifests(name), specs[name].expect
    assert admit(manifest, validate(manifest, raw, expect)[0]) is manifest
    split = next(iter(expect.class_counts))
    counts = expect.plain_counts()
    if isinstance(counts[split], dict):
        counts[split] = counts[split] | {"total": counts[split]["total"] + 1}
    else:
        counts[split] = [*counts[split][:-1], counts[split][-1] + 1]
    wrong = parse(Expect, expect.model_dump() | {"class_counts": counts}, name)
    with pytest.raises(Refused, match=rf"expect_class_counts_to_equal: 1 violation, e\.g\. {split} "):
        admit(manifest, validate(manifest, raw, wrong)[0])


@pytest.mark.skipif(not REAL, reason="LTPIPE_TINY_IMAGENET does not name the unpacked tiny-imagenet-200")
@pytest.mark.parametrize(
    ("name", "pinned"), [("tiny_imagenet_lt", "d51b7b6ec3e08be4"), ("tiny_imagenet_lt_10", "fe47c6adb773e833")]
)
def test_the_real_tiny_imagenet_has_the_pinned_split_and_is_admitted(name, pinned, specs, tmp_path):
    spec = specs[name]
    index = fetch(spec.source.model_copy(update={"options": {"root": REAL}}), tmp_path)[0]
    manifest = draw(index, spec.split)
    assert fingerprint(manifest) == pinned
    assert admit(manifest, validate(manifest, tmp_path, spec.expect)[0]) is manifest
