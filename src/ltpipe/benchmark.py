"""Benchmark: one YAML file of conf/base/parameters, as a block of blocks; validated whole before anything runs."""

import re
from collections.abc import Collection
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from ltpipe.data.expectations import Expect
from ltpipe.data.fetch import Source
from ltpipe.data.split import Split
from ltpipe.evaluation.claims import Claims
from ltpipe.evaluation.judge import Gate, Reported
from ltpipe.evaluation.metrics import Evaluation
from ltpipe.export import Parity
from ltpipe.models.spec import Model
from ltpipe.parameters import blocks, names
from ltpipe.runs import Run
from ltpipe.specs import Refused, Spec, parse
from ltpipe.training.schedule import Schedule

NAME = re.compile(r"[a-z][a-z0-9_]*")


class Row(Spec):
    """One run: how it trains, and what a paper reports of it."""

    train: Run
    reported: Reported
    seeds: list[str] | None = Field(None, min_length=1, description="seeds of this run; default: all")


class Benchmark(Spec):
    """Everything that one benchmark is; each block is read by exactly one kind of node."""

    source: Source
    split: Split
    expect: Expect
    model: Model
    schedule: Schedule
    parity: Parity
    evaluate: Evaluation
    seeds: dict[str, int] = Field(min_length=1)
    runs: dict[str, Row] = Field(min_length=1)
    gate: Gate
    order: Claims

    @field_validator("seeds", "runs")
    @classmethod
    def _names(cls, named: dict[str, object]) -> dict[str, object]:
        wrong = [name for name in named if not NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"names are lower-case letters, digits and _, not: {', '.join(wrong)}")
        return named

    @model_validator(mode="after")
    def _whole(self) -> "Benchmark":
        for name, row in self.runs.items():
            self._starts(name, row.train)
            self._seeds(name, row)
            self._judged(name, row)
            self._recipe(name, row)
        if unknown_runs := set(self.gate.runs or ()) - set(self.runs):
            raise ValueError(f"gate.runs: no {sorted(unknown_runs)}; runs: {', '.join(self.runs)}")
        if self.model.image > self.source.size:
            raise ValueError(f"model.image {self.model.image} is larger than source.size {self.source.size}")
        unknown = [m for m in self.gate.metrics if m.split(".")[0] not in self.evaluate.protocols]
        if unknown:
            raise ValueError(
                f"gate.metrics name no protocol: {unknown}; protocols: {', '.join(self.evaluate.protocols)}"
            )
        splits = {s for row in self.runs.values() for s in [row.train.split]} | {
            s for p in self.evaluate.protocols.values() for s in (p.train, p.test)
        }
        if missing := sorted(splits - set(self.expect.class_counts)):
            raise ValueError(f"splits that expect.class_counts does not state: {missing}")
        return self

    def seeds_of(self, run: str) -> list[str]:
        """Names of the run's seeds."""
        return self.runs[run].seeds or list(self.seeds)

    def _seeds(self, name: str, row: Row) -> None:
        if unknown := set(row.seeds or ()) - set(self.seeds):
            raise ValueError(f"runs.{name}.seeds: no {sorted(unknown)}; seeds: {', '.join(self.seeds)}")
        start = row.train.start_from
        if start and (missing := set(self.seeds_of(name)) - set(self.seeds_of(start))):
            raise ValueError(f"runs.{name}.seeds: {start}, from which it starts, has no {sorted(missing)}")
        if len(self.seeds_of(name)) == 1 and self.gate.concerns(name):
            raise ValueError(f"runs.{name} has one seed, whose noise is unknown: leave it out of gate.runs")

    def _recipe(self, name: str, row: Row) -> None:
        """What the run changes in the schedule is a schedule, and its method uses it."""
        try:
            self.schedule.changed(row.train.schedule)
        except Refused as refused:
            raise ValueError(f"runs.{name}.train.{refused.message}") from None
        if unused := self.schedule.unused(row.train, self.expect.classes):
            raise ValueError(f"runs.{name}.train.schedule: {row.train.method} does not use {', '.join(unused)}")

    def _judged(self, name: str, row: Row) -> None:
        """A protocol judges the run, and its reported value is of a protocol."""
        protocols = self.evaluate.protocols
        if row.train.split not in (trains := sorted({p.train for p in protocols.values()})):
            raise ValueError(
                f"runs.{name}.train.split: no protocol trains on {row.train.split!r}; {', '.join(trains)} do"
            )
        metric = row.reported.metric
        if metric is not None and metric.split(".")[0] not in protocols:
            raise ValueError(
                f"runs.{name}.reported.metric: {metric} names no protocol; protocols: {', '.join(protocols)}"
            )

    def _starts(self, name: str, run: Run) -> None:
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
    """The benchmarks `wanted` (default: all) of conf/base by name; those that they refer to are read, and no others.

    Raises Refused, naming file, key and valid keys, where one is not a benchmark.
    """
    asked = [name for name in names(folder) if wanted is None or name in wanted]
    found = blocks(folder / "parameters", asked)
    return {name: parse(Benchmark, found[name], f"{folder / 'parameters' / name}.yml, {name}") for name in asked}
