"""Benchmark: one YAML file of conf/base/parameters, as a block of blocks; validated whole before anything runs."""

import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from ltpipe.data.expectations import Expect
from ltpipe.data.fetch import Source
from ltpipe.data.split import Split
from ltpipe.evaluation.judge import Gate, Reported
from ltpipe.evaluation.metrics import Evaluation
from ltpipe.export import Parity
from ltpipe.models.spec import Model
from ltpipe.runs import Run
from ltpipe.specs import Refused, Spec, parse
from ltpipe.training.schedule import Schedule

NAME = re.compile(r"[a-z][a-z0-9_]*")


class Row(Spec):
    """One run: how it trains, and what a paper reports of it."""

    train: Run
    reported: Reported


class Benchmark(Spec):
    """Everything that one benchmark is; each block is read by exactly one kind of node."""

    source: Source
    split: Split
    expect: Expect
    model: Model
    schedule: Schedule
    parity: Parity = Parity()
    evaluate: Evaluation
    seeds: dict[str, int] = Field(min_length=1)
    runs: dict[str, Row] = Field(min_length=1)
    gate: Gate

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
        if self.model.image != self.source.size:
            raise ValueError(f"model.image {self.model.image} is not source.size {self.source.size}")
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


def load(folder: Path) -> dict[str, Benchmark]:
    """Every benchmark of conf/base/parameters by name; the file name is the name.

    Raises Refused, naming file, key and valid keys, where one is not a benchmark.
    """
    import yaml

    found = {}
    for path in sorted((folder / "parameters").glob("*.yml")):
        try:
            content = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise Refused(f"{path}: not YAML: {error}") from None
        if not isinstance(content, dict) or list(content) != [path.stem]:
            raise Refused(f"{path}: must hold one top-level key, {path.stem}")
        found[path.stem] = parse(Benchmark, content[path.stem], f"{path}, {path.stem}")
    if not found:
        raise Refused(f"no benchmark in {folder / 'parameters'}: one .yml file a benchmark")
    return found
