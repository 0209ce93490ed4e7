"""`ltpipe init`: look at a folder of your own images, and write a benchmark for it that runs without an edit.

ltpipe init PATH --name NAME            looks, prints, and writes conf/base/parameters/NAME.yml (like: image_folder)
ltpipe init PATH --name NAME            again: says what has changed since, and writes nothing
ltpipe init PATH --name NAME --update   rewrites what it wrote, and keeps what you edited

PATH is what the source image_folder reads: a folder of class folders, a folder with train, val and test of class
folders, or a CSV or parquet file. Inside the project it is written relative to it. Outside it is a fact of this
machine: it goes to conf/local, which git ignores; elsewhere LTPIPE_IMAGE_FOLDER names the folder.

What is chosen, and by which rule, is the docstring of ltpipe.survey.choices. The counts come from a split that is
really drawn. What was written, and of which pictures, is kept in data/01_raw/image_folder/.init-NAME.json.
"""

import json
import os
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import yaml
from kedro.utils import find_kedro_project

from ltpipe.benchmark import NAME, Benchmark, load
from ltpipe.config.parameters import load_blocks, merge, read_benchmark_file, resolve_like
from ltpipe.config.shell import typed
from ltpipe.config.spec import Refused, parse
from ltpipe.data.decode import decode
from ltpipe.data.sampling.class_sizes import encode_runs
from ltpipe.data.sources.image_folder import VARIABLE
from ltpipe.data.split import Split, draw
from ltpipe.storage.atomic import write_atomically
from ltpipe.storage.table import Table
from ltpipe.survey import choices, cost, lookalikes, revise, show
from ltpipe.survey.folder import Survey, count_splits, look, require_enough

TEMPLATE = "image_folder"  # the whole network from random weights; with --backbone, choices.FINETUNE
RAW = f"data/01_raw/{TEMPLATE}"
WHY = "your own data: nobody else reports on it"


class Place(NamedTuple):
    """The files of one benchmark. root: the project's folder. images: what PATH leads to."""

    root: Path
    name: str
    images: Path

    @property
    def file(self) -> Path:
        """The benchmark's file."""
        return self.root / f"conf/base/parameters/{self.name}.yml"

    @property
    def local(self) -> Path:
        """The file with what is true of this machine only."""
        return self.root / f"conf/local/parameters/{self.name}.yml"

    @property
    def memory(self) -> Path:
        """What was written the last time, and of which pictures."""
        return self.root / RAW / f".init-{self.name}.json"

    @property
    def inside(self) -> str | None:
        """PATH relative to the project, if it is inside."""
        return self.images.relative_to(self.root).as_posix() if self.images.is_relative_to(self.root) else None


class Asked(NamedTuple):
    """What the user chose instead of the rules; None: by the rules."""

    size: int | None = None
    epochs: int | None = None
    seeds: int | None = None
    network: Mapping[str, str] | None = None  # options of the backbone timm

    def or_else(self, other: "Asked") -> "Asked":
        """Return this, with what it leaves open from `other`."""
        return Asked(**other._asdict() | {key: mine for key, mine in self._asdict().items() if mine is not None})


class Drawn(NamedTuple):
    """What was found and chosen: a benchmark's block, the manifest that it gives, and the squares of a sample.

    splits: split -> pictures of each class, C. groups: of each class, C.
    """

    survey: Survey
    manifest: Table
    splits: Mapping[str, list[int]]
    groups: Sequence[str]
    squares: np.ndarray
    block: dict[str, Any]


@click.command("init")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The benchmark's name: lower-case letters, digits and _.")
@click.option("--update", is_flag=True, help="Rewrite what an earlier init wrote; your edits are kept.")
@click.option(
    "--size", type=click.Choice([str(s) for s in choices.SIZES]), help="Pixels of the squares; default: by the images."
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs of every training; default: by the number of images.")
@click.option(
    "--seeds",
    type=click.IntRange(2),
    help="Trainings of every run. Default: 3; with 2 the gate seldom sees enough to be accepted.",
)
@click.option("--backbone", help="A network of timm to start from, with the tag of its weights: resnet50.tv_in1k.")
@click.option("--weights", help="A file of weights for --backbone, instead of timm's own.")
@click.option("--pretrained-on", help="What these weights have been trained on, e.g. in1k.")
def command(
    path: Path,
    name: str,
    update: bool,
    size: str | None,
    epochs: int | None,
    seeds: int | None,
    backbone: str | None,
    weights: str | None,
    pretrained_on: str | None,
) -> None:
    """Look at the images in PATH, and write a benchmark NAME for them."""
    place = find_place(path, name)
    network = _ask_network(place, backbone, weights, pretrained_on, size)
    asked = Asked(int(size) if size else None, epochs, seeds, network)
    if place.file.exists():
        return _look_again(place, update, asked)
    if update:
        raise Refused(f"--update: there is no {place.file.relative_to(place.root)} yet; leave it out")
    drawn = draw_benchmark(place, None, asked)
    _report(drawn)
    spec = _whole(place, drawn.block)
    price = cost.estimate(spec, {split: sum(counts) for split, counts in drawn.splits.items()}, drawn.squares)
    header = write_header(place, drawn, spec, price)
    body = yaml.safe_dump({name: drawn.block}, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    _write(place, header + body)
    _remember(place, drawn, header, asked)
    _say(*(line.removeprefix("# ") for line in header.splitlines()), "", *_describe_writing(place))
    _say(*next_commands(place, drawn, spec))
    return None


def _ask_network(
    place: Place, backbone: str | None, weights: str | None, pretrained_on: str | None, size: str | None
) -> dict[str, str] | None:
    """Return the options of the network to start from, if one is asked for. Raises Refused if they do not fit."""
    if backbone is None:
        if weights or pretrained_on:
            raise Refused("--weights and --pretrained-on belong to a network: name it by --backbone")
        return None
    if size is not None:
        raise Refused("--size: with --backbone, the size is that of the network")
    stated = {"pretrained_on": pretrained_on} if pretrained_on else {}
    return {"name": backbone, "weights": _name_file(place, weights) if weights else "timm"} | stated


def _name_file(place: Place, weights: str) -> str:
    """Return the path of a file as the benchmark names it: inside the project, relative to it."""
    path = Path(weights).resolve()
    if not path.is_file():
        raise Refused(f"--weights: no file {weights}")
    return path.relative_to(place.root).as_posix() if path.is_relative_to(place.root) else str(path)


def find_place(path: Path, name: str) -> Place:
    """Return where the benchmark's files are. Raises Refused if the name, the path or the project is not right."""
    if not NAME.fullmatch(name):
        raise Refused(f"--name {name}: a name is lower-case letters, digits and _, and begins with a letter")
    root = find_kedro_project(Path.cwd())
    if root is None or not (Path(root) / f"conf/base/parameters/{TEMPLATE}.yml").exists():
        raise Refused(f"{Path.cwd()} is not in an ltpipe project: type this in a clone of ltpipe")
    if not path.exists():
        raise Refused(f"there is no folder or file {path}")
    place = Place(Path(root).resolve(), name, path.resolve())
    if place.file.exists() and not place.memory.exists() and "`ltpipe init`" not in place.file.read_text("utf-8"):
        raise Refused(f"--name {name}: {place.file.relative_to(place.root)} is there, and init did not write it")
    return place


def draw_benchmark(place: Place, split: Split | None, asked: Asked) -> Drawn:
    """Look at the pictures, draw the split, and choose. split: with the user's edits; None: the template's."""
    survey = look(place.images, place.root / RAW)
    require_enough(survey)
    names = survey.names()
    like = choices.FINETUNE if asked.network else TEMPLATE
    template = load(place.root / "conf/base", [like])[like]
    manifest = draw(survey.index, split or template.split)
    splits = count_splits(manifest, len(names))
    rule = choices.choose_groups(splits["train"])
    gpu = _has_gpu()
    given = choices.choose_pretrained(asked.network, gpu) if asked.network else {}
    side = given["source"]["size"] if given else asked.size or choices.choose_size(survey.sizes, gpu)
    squares = _read_sample(survey, manifest, side)
    options: dict[str, str] = {} if place.inside is None else {"root": place.inside}
    options |= {"broken": "exclude"} if survey.broken else {}
    options |= {"duplicates": "exclude"} if survey.equal else {}
    groups = rule.model_dump()
    schedule = {} if given else choices.choose_schedule(sum(splits["train"]), side)
    schedule |= _shorter(asked.epochs, int(template.schedule.warmup))
    block = {
        "like": given.get("like", TEMPLATE),
        "source": {"size": side} | ({"options": options} if options else {}),
        "split": {"options": {"groups": groups}},
        "expect": {
            "classes": len(names),
            "class_counts": {part: encode_runs(counts) for part, counts in splits.items()},
            "groups": groups | {"split": "train"},
        },
        "model": given.get("model")
        or choices.choose_network(side, gpu) | {"image": side} | choices.measure_pixels(squares),
        **({"schedule": schedule} if schedule else {}),
        "reported": {"why": WHY},
    } | ({"seeds": {f"s{seed}": seed for seed in range(asked.seeds)}} if asked.seeds else {})
    members = rule.of_classes(np.array(splits["train"])).tolist()
    block |= choices.choose_gate(splits["test"], members)
    # a copy without shared parts, which YAML would write as an anchor and a reference
    return Drawn(
        survey,
        manifest,
        splits,
        members,
        squares,
        json.loads(json.dumps(block)),
    )


def _shorter(epochs: int | None, warmup: int) -> dict[str, int]:
    """Return what a number of epochs changes: the warm-up is at most a tenth of them."""
    return {"epochs": epochs, "warmup": min(warmup, epochs // 10)} if epochs else {}


def _read_sample(survey: Survey, manifest: Table, side: int) -> np.ndarray:
    """Return squares of training pictures, uint8, up to SAMPLE x side x side x 3."""
    trained = survey.index["image"].isin(set(manifest.loc[manifest["split"] == "train", "image"]))
    return decode(survey.paths(choices.spread(np.flatnonzero(trained), choices.SAMPLE)), side)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _whole(place: Place, block: Mapping[str, Any]) -> Benchmark:
    """Return the block as a whole benchmark. Raises Refused if it is none."""
    folder = place.root / "conf/base/parameters"
    known = [name for name in (TEMPLATE, choices.FINETUNE) if (folder / f"{name}.yml").exists()]
    blocks = load_blocks(folder, known) | {place.name: block}
    return parse(Benchmark, resolve_like(blocks, place.name), str(place.file.relative_to(place.root)))


def write_header(place: Place, drawn: Drawn, spec: Benchmark, price: cost.Cost) -> str:
    """Return the comment at the top of the file: what it is of, how to run it, what it costs, why these choices."""
    totals = {split: sum(counts) for split, counts in drawn.splits.items()}
    parts = ", ".join(f"{number:,} {split}" for split, number in totals.items())
    rule = spec.expect.groups
    lines = [
        f"{place.name}: {len(drawn.survey.index):,} pictures of {spec.expect.classes} classes as `ltpipe init` found "
        f"them: {parts}.",
        f"Command: kedro run --pipeline={place.name}",
        f"Expected: nobody else reports on it. The numbers that `ltpipe accept {place.name}` takes are its baseline.",
        _describe_cost(spec, price),
        _describe_network(drawn, spec, totals["train"]),
        f"Groups: {_describe_groups(rule, drawn.groups)}.",
        *([] if spec.gate.metrics else ["The few do not gate: they have too few test pictures to see a fall."]),
    ]
    return "".join(f"# {part}\n" for line in lines for part in textwrap.wrap(line, 118))


def _describe_cost(spec: Benchmark, price: cost.Cost) -> str:
    cells = sum(len(spec.seeds_of(run)) for run in spec.runs)
    return (
        f"Cost: about {show.describe_time(price.seconds)} of training for {cells} cells where init was run (estimated "
        f"from a few steps), then seconds a cell to export and evaluate; {show.describe_size(price.size)} in data/, "
        "and as much in DVC's cache."
    )


def _describe_network(drawn: Drawn, spec: Benchmark, trained: int) -> str:
    """Return size, and epochs and batch or the weights to start from, with the reasons. trained: training images."""
    size, schedule = spec.source.size, spec.schedule
    if seen := spec.model.seen():
        name, weights = (spec.model.options[key] for key in ("name", "weights"))
        return f"Size {size}: by the network, {name}. Its weights, {weights}, have been trained on {seen}."
    by_rule = schedule.epochs == choices.choose_schedule(trained, size)["epochs"]
    return (
        f"Size {size}: the median of the shorter sides is {np.median(drawn.survey.sizes.min(axis=1)):g} pixels"
        + ("" if _has_gpu() else f"; without a GPU at most {choices.LARGEST_WITHOUT_GPU}")
        + f" (--size). Epochs {schedule.epochs}{'' if by_rule else ' (by your choice)'}, batch {schedule.batch}: by "
        f"the {trained:,} training images."
    )


def _describe_groups(rule: Any, groups: Sequence[str]) -> str:
    sizes = ", ".join(f"{groups.count(group)} {group}" for group in dict.fromkeys(sorted(groups, key=_group_place)))
    if (rule.by, rule.many, rule.medium) == ("count", 100, 20):
        return f"{sizes}; many > 100, few < 20 training images"
    why = "thirds by rank" if rule.by == "rank" else "the larger and the smaller class"
    return f"{sizes}; {why}, because with 100 and 20 images as limits a group would be empty"


def _group_place(group: str) -> int:
    return ("many", "medium", "few").index(group)


def _report(drawn: Drawn) -> None:
    """Print what was found."""
    survey, names = drawn.survey, drawn.survey.names()
    hashes, plain = lookalikes.hash_files(survey.paths())
    _say(*show.describe_pictures(survey))
    _say(*show.describe_lookalikes(survey, lookalikes.find_pairs(hashes), drawn.manifest))
    _say(*show.describe_one_colour(survey.index["image"].to_numpy()[plain].tolist()), "")
    _say(*show.table(names, drawn.splits, drawn.groups), "", *show.warn_of_few(names, drawn.splits))


def _say(*lines: str) -> None:
    """Print lines; what the terminal cannot show is escaped."""
    text = "".join(f"{line}\n" for line in lines)
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _write(place: Place, text: str) -> None:
    """Write the benchmark's file, and the folder of the images where it is a fact of this machine."""
    try:
        write_atomically(place.file, text.encode())
        # a folder inside is named by the benchmark's file, which an older name in conf/local would override
        if place.inside is None or _local_root(place):
            block = {place.name: {"source": {"options": {"root": place.inside or str(place.images)}}}}
            content = yaml.safe_dump(merge(_read_local(place), block), allow_unicode=True)
            write_atomically(place.local, content.encode())
    except OSError as error:
        raise Refused(f"cannot write {error.filename}: {error.strerror}") from None


def _read_local(place: Place) -> dict[str, Any]:
    return (yaml.safe_load(place.local.read_text("utf-8")) or {}) if place.local.exists() else {}


def _local_root(place: Place) -> str | None:
    """Return the folder of the images that conf/local names, if it does."""
    source = (_read_local(place).get(place.name) or {}).get("source") or {}
    return (source.get("options") or {}).get("root")


def _describe_writing(place: Place) -> list[str]:
    lines = [f"wrote {place.file.relative_to(place.root)}"]
    if place.inside is None:
        lines += [
            f"wrote {place.local.relative_to(place.root)}: the folder of the images on this machine; elsewhere set "
            "LTPIPE_IMAGE_FOLDER"
        ]
    return lines


def _pictures(drawn: Drawn) -> dict[str, list[str]]:
    """Return path -> class, digest and the split that the user stated, of every picture."""
    columns = (drawn.survey.index[key] for key in ("image", "class_name", "official"))
    return {path: [label, drawn.survey.contents[path], split] for path, label, split in zip(*columns, strict=True)}


def _remember(place: Place, drawn: Drawn, header: str, asked: Asked) -> None:
    content = {"header": header, "block": drawn.block, "pictures": _pictures(drawn)}
    content |= {"drawn": _drawn_splits(drawn), "asked": asked._asdict()}
    write_atomically(place.memory, json.dumps(content).encode())


def _drawn_splits(drawn: Drawn) -> dict[str, str]:
    return dict(zip(drawn.manifest["image"], drawn.manifest["split"], strict=True))


def next_commands(place: Place, drawn: Drawn, spec: Benchmark) -> list[str]:
    """Return the commands that go on from here."""
    from ltpipe.pages import dvc_yaml

    name = place.name
    tested = drawn.manifest.loc[drawn.manifest["split"] == "test", "image"].iloc[0]
    picture = shlex.quote(str(drawn.survey.folder / tested))
    ledger = dvc_yaml.place(name, place.root).parent.relative_to(place.root)
    again = (place.root / f"conf/accepted/{name}.json").exists()
    outcome = "exit 3: the accepted numbers are of other pictures" if again else "exit 6: nothing is accepted yet"
    reason = f"{len(drawn.survey.index)} pictures" if again else "first baseline"
    page, run = f"data/08_reporting/{name}/report/report.html", typed(f"kedro run --pipeline={name}")
    return [
        "go on with:",
        f"  {run}  # trains and measures; {outcome}",
        f'  {typed(f"ltpipe accept {name}")} --reason "{reason}"  # if {page} is right',
        f"  {run}  # the gate, from now on: exit 0 while no model gets worse",
        f"  {typed('ltpipe predict')} MODEL {picture}  # a test picture; MODEL: see the end of the run",
        f"  {typed(f'ltpipe generate {name}')} && {typed(f'dvc commit -f -R {ledger}')}  # if you want a ledger; then: "
        f"{typed(f'dvc repro -R {ledger}')}",
    ]


def _look_again(place: Place, update: bool, asked: Asked) -> None:
    """Say what has changed since the last init; with `update`, rewrite what it wrote.

    What was asked for stays, and so do size and network, which may have been chosen on another machine.
    """
    memory = _recall(place)
    spec = _whole(place, read_benchmark_file(place.file)[place.name])
    before = Asked(**memory.get("asked", {}))
    if asked.network is not None and memory and asked.network != before.network:
        raise Refused(
            f"--backbone: {place.file.relative_to(place.root)} was written with "
            f"{(before.network or {}).get('name', 'a network from random weights')}; take another --name for this one"
        )
    wanted = asked.or_else(before).or_else(Asked(spec.source.size))
    drawn = draw_benchmark(place, spec.split, wanted)
    if wanted.size == spec.source.size and memory:
        # mean and std too: measured anew they would be another recipe, at every picture that comes. And the runs, which
        # are others where there is a GPU
        drawn.block.update({key: memory["block"][key] for key in ("model", "like")})
    changes = [*_describe_move(place, spec), *_describe_wishes(spec, asked), *_describe_changes(memory, spec, drawn)]
    changes += show.describe_moves(memory.get("drawn", {}), _drawn_splits(drawn))
    where = place.file.relative_to(place.root)
    if not changes:
        _say(f"nothing changed: the {len(drawn.survey.index):,} pictures are those of {where}")
        return
    _say(f"changed since {where} was written:", *(f"  {line}" for line in changes))
    if not update:
        _say(f"nothing is written; to rewrite what init wrote: {_command(place)} --update")
        return
    _update(place, memory | {"block": _as_written(memory, place, asked)}, drawn, wanted)


def _as_written(memory: Mapping[str, Any], place: Place, asked: Asked) -> dict[str, Any]:
    """Return what init wrote, with the file's own values of what is asked for now: asked for, they are no edits."""
    block, present = dict(memory.get("block", {})), read_benchmark_file(place.file)[place.name]
    if asked.epochs is not None:
        epochs = {"epochs": present["schedule"]["epochs"]} if "epochs" in present.get("schedule", {}) else {}
        block["schedule"] = {k: v for k, v in block.get("schedule", {}).items() if k != "epochs"} | epochs
    if asked.seeds is not None:
        block["seeds"] = present.get("seeds", {})
    return block


def _describe_wishes(spec: Benchmark, asked: Asked) -> list[str]:
    """Return a line for each option that differs from the file."""
    wishes = (("epochs", spec.schedule.epochs, asked.epochs), ("seeds", len(spec.seeds), asked.seeds))
    return [f"{name}: {now} -> {wish}" for name, now, wish in wishes if wish not in (None, now)]


def _command(place: Place) -> str:
    return typed(f"ltpipe init {shlex.quote(str(place.inside or place.images))} --name {place.name}")


def _recall(place: Place) -> dict[str, Any]:
    """Return what the last init remembered; {} where it ran on another machine."""
    try:
        content: dict[str, Any] = json.loads(place.memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return content


def _describe_move(place: Place, spec: Benchmark) -> list[str]:
    """Return a line if the pipeline would read another folder than PATH: with equal pictures nothing else shows it."""
    options: Mapping[str, Any] = spec.source.options
    stated = _local_root(place) or options.get("root") or os.environ.get(VARIABLE)
    if stated and (place.root / Path(stated).expanduser()).resolve() == place.images:
        return []
    return [f"folder: {stated or 'not stated on this machine'} -> {place.inside or place.images}"]


def _describe_changes(memory: Mapping[str, Any], spec: Benchmark, drawn: Drawn) -> list[str]:
    """Return what differs from the last time; where nothing was remembered, from the counts of the file."""
    size, stated = drawn.block["source"]["size"], spec.expect.plain_counts()
    resized = [f"size: {spec.source.size} -> {size}"] if size != spec.source.size else []
    lines = [
        f"{split}: {stated.get(split)} -> {counts} pictures of the classes"
        for split, counts in drawn.splits.items()
        if stated.get(split) != counts
    ]
    if memory:  # pictures say more than counts, which also change with an edited split
        return [*resized, *(show.differences(memory["pictures"], _pictures(drawn)) or lines)]
    return [*resized, *lines, *(["which pictures, is not known: init was run elsewhere"] if lines else [])]


def _update(place: Place, memory: Mapping[str, Any], drawn: Drawn, asked: Asked) -> None:
    text = place.file.read_text("utf-8")
    revised = revise.revise(text, place.name, memory.get("block", {}), drawn.block)
    header, body = revise.split_header(revised.text)
    spec = _whole(place, yaml.safe_load(body)[place.name])
    _report(drawn)
    # the size may be an edit
    squares = _read_sample(drawn.survey, drawn.manifest, spec.source.size)
    price = cost.estimate(spec, {split: sum(counts) for split, counts in drawn.splits.items()}, squares)
    fresh = write_header(place, drawn, spec, price)
    # a header that was edited is the user's
    kept = header != memory.get("header", fresh)
    _write(place, (header if kept else fresh) + body)
    _remember(place, drawn, header if kept else fresh, asked)
    counted = [line for line in revised.changed if line.startswith("expect.class_counts")]
    others = [line for line in revised.changed if line not in counted]
    _say(*(["changed expect.class_counts: the table above"] if counted else []))
    _say(*(f"changed {line}" for line in others), *(f"kept {line}" for line in revised.kept))
    _say(_describe_cost(spec, price))
    _say(*(["kept the comment at the top, an edit"] if kept else []), *_describe_writing(place))
    _say(*next_commands(place, drawn, spec))


if __name__ == "__main__":
    command()
