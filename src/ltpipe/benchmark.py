"""Benchmark: one YAML file of conf/base/parameters as a block of blocks, validated whole before anything runs."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from ltpipe.clustering.cluster import Clusters
from ltpipe.config.parameters import benchmark_names, load_blocks
from ltpipe.config.spec import Refused, Spec, parse
from ltpipe.data.checks.validate import Expect
from ltpipe.data.source import Source
from ltpipe.data.split import Split
from ltpipe.evaluation.claims import Claims
from ltpipe.evaluation.judge import Gate
from ltpipe.evaluation.measure import Evaluation
from ltpipe.evaluation.reported import Reported, SharedReported
from ltpipe.models.model import Model
from ltpipe.recipe.run import Run, require_branches, require_trained_backbone
from ltpipe.recipe.schedule import Schedule
from ltpipe.serving.export import Parity
from ltpipe.storage.manifest import role_of

NAME = re.compile(r"[a-z][a-z0-9_]*")


class TableRow(Spec):
    """One row of the benchmark's table: how it trains, and what a paper reports of it."""

    train: Run = Field(description="how it trains")
    reported: Reported = Field(Reported(), description="a paper's number, or why there is none")
    seeds: list[str] | None = Field(None, min_length=1, description="seeds of this run; default: all")


class Benchmark(Spec):
    """A whole benchmark. Each block belongs to one consumer; those that must agree on a block share it."""

    read_before: ClassVar[Mapping[str, str]] = {
        "like": "benchmark whose blocks are taken, a name or {benchmark, runs} "
        "([rules](adr/0007-one-benchmark-like-another.md))"
    }

    source: Source = Field(description="which images")
    cluster: Clusters | None = Field(None, description="how attributes are made; null: images have some, or need none")
    split: Split = Field(description="how the manifest is drawn")
    expect: Expect = Field(description="what the manifest must be, in integers")
    model: Model = Field(description="the network without its classifier")
    schedule: Schedule = Field(description="the recipe of every run")
    parity: Parity = Field(Parity(), description="when the exported model agrees with the trained one")
    evaluate: Evaluation = Field(description="the protocols: which test split judges which training split")
    seeds: dict[str, int] = Field(
        default={"s0": 0, "s1": 1, "s2": 2}, min_length=1, description="seeds of every run, by name"
    )
    seeds_together: bool = Field(
        False,
        description="the seeds of a run are one stage of dvc.yaml and one process: right where a cell takes less time "
        "than a process takes to start",
    )
    runs: dict[str, TableRow] = Field(min_length=1, description="the rows of the table, by name")
    gate: Gate = Field(description="which metrics of which runs may fail the build")
    claims: Claims = Field(Claims(), description="what papers claim of the order of runs; gates nothing")
    reported: SharedReported = Field(SharedReported(), description="what the `reported` blocks of the runs share")

    @model_validator(mode="before")
    @classmethod
    def _share_reported(cls, block: Any) -> Any:
        """Fill what runs share into their `reported` blocks; whatever has the wrong type is refused later."""
        runs = block.get("runs") if isinstance(block, Mapping) else None
        if not isinstance(runs, Mapping) or not isinstance(block.get("reported", {}), Mapping):
            return block
        try:
            shared = SharedReported.model_validate(block.get("reported", {}))
        except ValidationError as error:  # its paths begin inside the block
            lines = [_error_in_reported(line) for line in error.errors()]
            raise ValidationError.from_exception_data(error.title, lines) from None
        return dict(block) | {"runs": {name: _with_reported(row, shared) for name, row in runs.items()}}

    @field_validator("seeds", "runs")
    @classmethod
    def _names(cls, named: dict[str, object]) -> dict[str, object]:
        wrong = [name for name in named if not NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"names are lower-case letters, digits and _, not: {', '.join(wrong)}")
        return named

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: dict[str, int]) -> dict[str, int]:
        """One training that counts as several seeds would make the mean look surer than it is."""
        numbers = list(seeds.values())
        if twice := [name for name, number in seeds.items() if numbers.count(number) > 1]:
            raise ValueError(f"each name needs a number of its own, but {', '.join(twice)} share theirs")
        return seeds

    @model_validator(mode="after")
    def _consistent(self) -> "Benchmark":
        self._check_roles()
        for name, row in self.runs.items():
            self._check_start(name, row.train)
            self._check_seeds(name, row)
            self._check_protocol(name, row)
            self._check_reported(name, row)
            self._check_recipe(name, row)
        self._check_reasons()
        self._check_claims()
        self._check_gate()
        if self.model.image > self.source.size:
            raise ValueError(f"model.image {self.model.image} is larger than source.size {self.source.size}")
        self._check_splits()
        self._check_clusters()
        self._check_crops()
        return self

    def seeds_of(self, run: str) -> list[str]:
        """Return the names of the run's seeds."""
        return self.runs[run].seeds or list(self.seeds)

    def modules(self) -> frozenset[str]:
        """Return the modules that the blocks name, with the optimisers and rates of runs that have their own."""
        own = (self.schedule.with_changes(row.train.schedule).modules() for row in self.runs.values())
        return super().modules().union(*own)

    def graph(self) -> dict[str, object]:
        """Return what decides which nodes and datasets the benchmark's graph has, and which stages its dvc.yaml."""
        return {
            "source.name": self.source.name,
            "source.pictures": self.source.pictures,
            "expect.crops": self.expect.crops is not None,
            "cluster": self.cluster is not None,
            "cluster.start_from": self.cluster.start_from if self.cluster else None,
            "seeds_together": self.seeds_together,
            "runs and seeds": {run: self.seeds_of(run) for run in self.runs},
            "runs.start_from": {run: row.train.start_from for run, row in self.runs.items()},
        }

    def _check_clusters(self) -> None:
        """The split takes as many clusters as the block `cluster` makes, of the same images."""
        options = self.split.config()
        for mine, theirs in (("count", "clusters"), ("official", "official")):
            wanted = getattr(options, theirs, None)
            if self.cluster is not None and wanted not in (None, getattr(self.cluster, mine)):
                raise ValueError(
                    f"cluster.{mine} is {getattr(self.cluster, mine)}, but split.options.{theirs} is {wanted}"
                )

    def _check_crops(self) -> None:
        """Boxes are taken from what the source has, and are as sharp as in the paper where a number is compared."""
        boxes = self.schedule.augment.resized_crop
        for key in ("source.pictures", "expect.crops"):
            if boxes is None and (self.source.pictures != "squares" if key == "source.pictures" else self.expect.crops):
                raise ValueError(f"{key} is about random boxes, but schedule.augment.resized_crop is null")
        for name, row in self.runs.items():
            augment = self.schedule.with_changes(row.train.schedule).augment
            if augment.colour_jitter and self.source.pictures == "squares":
                raise ValueError(
                    f"runs.{name}: schedule.augment.colour_jitter needs whole pictures: state source.pictures, packed "
                    "or files"
                )
            if self.expect.crops and augment.resized_crop != boxes:
                raise ValueError(
                    f"runs.{name}.train.schedule changes augment.resized_crop, but expect.crops measures the boxes of "
                    f"the benchmark, {boxes}"
                )
            if row.reported.value is not None and augment.resized_crop and not self.expect.crops:
                raise ValueError(
                    f"runs.{name} has a reported value, and random boxes: state how many of them may be enlarged, "
                    "expect.crops: {upsampled: whole} for no more than the authors' (or a share)"
                )

    def _check_reasons(self) -> None:
        silent = [name for name, row in self.runs.items() if not row.reported.gates and not row.reported.why]
        if silent:
            raise ValueError(
                f"runs {', '.join(silent)} have no reported number that gates: say why, in runs.<run>.reported.why, or "
                "once for all runs without a number in reported: {why: ...}"
            )

    def _check_claims(self) -> None:
        """Claims name runs and protocols of this benchmark, and say where the recipes of their two runs differ."""
        for claim in self.claims.root:
            if unknown := {claim.better, claim.than} - set(self.runs):
                raise ValueError(f"claims: no run {', '.join(sorted(unknown))}; runs: {', '.join(self.runs)}")
            if claim.metric.split(".")[0] not in self.evaluate.protocols:
                protocols = ", ".join(self.evaluate.protocols)
                raise ValueError(f"claims: {claim.metric} names no protocol; protocols: {protocols}")
            differing = self._differing_recipes(claim.better, claim.than)
            where = f"claims: the recipes of {claim.better} and {claim.than}"
            if differing and not claim.recipes:
                raise ValueError(
                    f"{where} differ in {', '.join(differing)}: compare runs of one recipe, or say in `recipes` how "
                    "they differ"
                )

    def _differing_recipes(self, first: str, second: str) -> list[str]:
        """Return the keys of the recipe in which two runs differ, with the runs that they start from."""
        one, other = self._recipe_of(first), self._recipe_of(second)
        return [key for key in one | other if one.get(key) != other.get(key)]

    def _recipe_of(self, name: str | None) -> dict[str, set[str]]:
        """Return the recipes of a run and of the runs that it starts from: key -> values."""
        recipe: dict[str, set[str]] = {}
        while name is not None:
            run = self.runs[name].train
            for key, values in self.schedule.compared(run, self.expect.classes).items():
                recipe[key] = recipe.get(key, set()) | values
            name = run.start_from
        return recipe

    def _check_gate(self) -> None:
        if unknown := set(self.gate.runs or ()) - set(self.runs):
            raise ValueError(f"gate.runs: no {sorted(unknown)}; runs: {', '.join(self.runs)}")
        protocols = self.evaluate.protocols
        if wrong := [metric for metric in self.gate.all_metrics() if metric.split(".")[0] not in protocols]:
            raise ValueError(
                f"gate.primary and gate.metrics name no protocol: {wrong}; protocols: {', '.join(protocols)}"
            )

        for name, row in self.runs.items():
            mine = {protocol for protocol, p in protocols.items() if p.train == row.train.split}
            if self.gate.concerns(name) and not any(m.split(".")[0] in mine for m in self.gate.all_metrics()):
                raise ValueError(
                    f"runs.{name} trains on {row.train.split}, of which no gated metric is measured: gate on one of "
                    f"{', '.join(sorted(mine))}, or name the other runs in gate.runs"
                )

    def _check_roles(self) -> None:
        """Runs and protocols train on training splits, and protocols test on test splits."""
        states = [(f"evaluate.protocols.{name}.train", "train", p.train) for name, p in self.evaluate.protocols.items()]
        states += [(f"evaluate.protocols.{name}.test", "test", p.test) for name, p in self.evaluate.protocols.items()]
        states += [(f"runs.{name}.train.split", "train", row.train.split) for name, row in self.runs.items()]
        for key, role, split in states:
            if role_of(split) != role:
                valid = ", ".join(sorted(name for name in self.expect.class_counts if role_of(name) == role)) or "none"
                raise ValueError(f"{key}: {split} is no {role} split; {role} splits: {valid}")

    def _check_splits(self) -> None:
        used = {row.train.split for row in self.runs.values()}
        used |= {split for p in self.evaluate.protocols.values() for split in (p.train, p.test)}
        if missing := sorted(used - set(self.expect.class_counts)):
            raise ValueError(f"splits that expect.class_counts does not state: {missing}")

    def _check_seeds(self, name: str, row: TableRow) -> None:
        if unknown := set(row.seeds or ()) - set(self.seeds):
            raise ValueError(f"runs.{name}.seeds: no {sorted(unknown)}; seeds: {', '.join(self.seeds)}")
        start = row.train.start_from
        if start and (missing := set(self.seeds_of(name)) - set(self.seeds_of(start))):
            raise ValueError(f"runs.{name}.seeds: {start}, from which it starts, has no {sorted(missing)}")
        if len(self.seeds_of(name)) == 1 and self.gate.concerns(name):
            raise ValueError(f"runs.{name} has one seed, whose noise is unknown: leave it out of gate.runs")

    def _check_recipe(self, name: str, row: TableRow) -> None:
        """The keys that the run changes in schedule and model exist, and its method uses them."""
        try:
            self.schedule.with_changes(row.train.schedule)
            needs = row.train.needs(self.expect.classes)
            require_branches(row.train, self.model, needs)
            require_trained_backbone(row.train, self.model, needs)
            self.schedule.require_method(row.train, self.expect.classes)
        except Refused as refused:
            raise ValueError(f"runs.{name}.train.{refused.message}") from None
        if unused := self.schedule.unused_keys(row.train, self.expect.classes):
            raise ValueError(f"runs.{name}.train.schedule: {row.train.method} does not use {', '.join(unused)}")

    def _check_protocol(self, name: str, row: TableRow) -> None:
        protocols = self.evaluate.protocols
        if row.train.split not in (trains := sorted({p.train for p in protocols.values()})):
            raise ValueError(
                f"runs.{name}.train.split: no protocol trains on {row.train.split!r}; {', '.join(trains)} do"
            )

    def _check_reported(self, name: str, row: TableRow) -> None:
        protocols, metric = self.evaluate.protocols, row.reported.metric
        if metric is not None and metric.split(".")[0] not in protocols:
            raise ValueError(
                f"runs.{name}.reported.metric: {metric} names no protocol; protocols: {', '.join(protocols)}"
            )

    def _check_start(self, name: str, run: Run) -> None:
        """start_from names a run, without a circle."""
        seen = [name]
        while run.start_from is not None:
            if run.start_from not in self.runs:
                raise ValueError(
                    f"runs.{seen[-1]}.train.start_from: no run {run.start_from!r}; runs: {', '.join(self.runs)}"
                )
            if run.start_from in seen:
                raise ValueError(f"runs.{name}.train.start_from: a circle, {' <- '.join([*seen, run.start_from])}")
            seen.append(run.start_from)
            run = self.runs[run.start_from].train


def load(folder: Path, wanted: Collection[str] | None = None) -> dict[str, Benchmark]:
    """Return the benchmarks `wanted` (default: all) of conf/base by name; other files are read only if referred to.

    Raises Refused, naming file, key and valid keys, if one is not a benchmark.
    """
    asked = [name for name in benchmark_names(folder) if wanted is None or name in wanted]
    for name in asked:
        _check_name(name, folder)
    blocks = load_blocks(folder / "parameters", asked)
    specs = {name: parse(Benchmark, blocks[name], f"{folder / 'parameters' / name}.yml, {name}") for name in asked}
    for name, spec in specs.items():
        _check_features(name, spec, folder)
    return specs


def _error_in_reported(line: Any) -> InitErrorDetails:
    error = PydanticCustomError("reported", "{message}", {"message": line["msg"]})
    return InitErrorDetails(type=error, loc=("reported", *line["loc"]), input=line["input"])


def _check_name(name: str, folder: Path) -> None:
    """The name can be a part of names of datasets, which the catalog's patterns take apart again."""
    if not NAME.fullmatch(name) or name.startswith("raw_"):
        raise Refused(
            f"{folder / 'parameters' / name}.yml: the name of a benchmark is lower-case letters, digits and _, and "
            "does not begin with raw_, as the datasets of sources do: give the file another name"
        )


def _with_reported(row: Any, shared: SharedReported) -> Any:
    reported = row.get("reported", {}) if isinstance(row, Mapping) else None
    return dict(row) | {"reported": shared.fill(reported)} if isinstance(reported, Mapping) else row


def _check_features(name: str, spec: Benchmark, folder: Path) -> None:
    """The cell of another benchmark that clusters start from exists."""
    if spec.cluster is None or spec.cluster.start_from is None:
        return
    other, run, seed = spec.cluster.start_from.split(".")
    where = f"{folder / 'parameters' / name}.yml, {name}:\n  cluster.start_from"
    if other == name:
        raise Refused(f"{where}: {spec.cluster.start_from} is trained on the split that is drawn from these clusters")
    if other not in (known := benchmark_names(folder)):
        raise Refused(f"{where}: no benchmark {other!r}; benchmarks: {', '.join(known)}")
    found = load(folder, [other])[other]
    if run not in found.runs or seed not in found.seeds_of(run):
        raise Refused(f"{where}: {other} has no cell {run}.{seed}; runs: {', '.join(found.runs)}")
