"""What a pull request changes of the accepted numbers and of the gate, and which of it somebody else has to agree to.

The author of a regression could accept it himself: one command and one commit. So a reason that is new in this pull
request is needed for every change of accepted numbers. A reason alone is enough where the gate of the base finds
nothing worse: better numbers, equal ones, a first baseline, more runs or seeds. It is not enough where numbers fall, or
can no longer be compared (other data, a run or seeds gone), or where the gate is loosened: a sentence is written in a
second, and the reader of the code may not read JSON. There the agreed label is needed, which a reviewer sets.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ltpipe.config.spec import Refused, parse
from ltpipe.evaluation.baseline import Accepted, AcceptedRun
from ltpipe.evaluation.comparison import Column, compare_all
from ltpipe.evaluation.judge import Gate
from ltpipe.evaluation.verdict import sign_of

TOGETHER = "all comparisons together"


class Row(NamedTuple):
    """One gated metric of a run: accepted on the base and here, in points; difference is new - old."""

    run: str
    metric: str
    old: float
    new: float
    difference: float
    margin: float
    worse: bool


class Change(NamedTuple):
    """What a pull request changes of one benchmark."""

    benchmark: str
    reason: str | None  # of the accepted file, if that is edited
    new_reason: bool
    rows: Sequence[Row]
    loosened: Sequence[str]  # how the gate sees less, a line each
    fallen: Sequence[str]  # what of the accepted numbers is worse or gone, a line each

    @property
    def accepts(self) -> bool:
        """Whether accepted numbers are edited."""
        return self.reason is not None

    @property
    def only_label(self) -> list[str]:
        """What only the label allows, a line each."""
        return [*self.loosened, *self.fallen]

    def missing(self, label: str) -> list[str]:
        """Return what is missing while nobody has set the label, a line each."""
        lines = []
        if self.accepts and not self.new_reason:
            lines.append(
                f"conf/accepted/{self.benchmark}.json has no reason that is new in this pull request: write it with "
                f'ltpipe accept {self.benchmark} --reason "...", or have the label {label} set'
            )
        if number := len(self.only_label):
            lines.append(
                f"{self.benchmark} needs the label {label}, reason or not, for {number} change{'s' * (number > 1)}"
            )
        return lines


class Side(NamedTuple):
    """A benchmark on one side of a pull request: its parameters (references resolved), and its accepted baseline."""

    block: Mapping[str, Any] | None
    accepted: Accepted | None


def find_change(name: str, base: Side, here: Side, reasons: Sequence[str]) -> Change | None:
    """Return what changes of one benchmark, or None. reasons: every reason that is in an accepted file of the base."""
    loosened = find_loosened(base, here)
    old, new = base.accepted, here.accepted
    if old == new:
        return Change(name, None, False, [], loosened, []) if loosened else None
    if new is None:
        return Change(name, "", True, [], loosened, ["the accepted baseline is removed"])
    is_new = _plain(new.reason) not in {"", *map(_plain, reasons)}
    if old is None:
        return Change(name, new.reason, is_new, [], loosened, [])
    gates = _gates_of(base)
    rows = [compare_accepted(old, new, gate) for gate in gates]
    worse = [_describe(row) for found in rows for row in found if row.worse]
    fallen = list(dict.fromkeys([*_find_gone(old, new, gates), *worse]))
    return Change(name, new.reason, is_new, rows[0] if rows else [], loosened, fallen)


def _plain(reason: str) -> str:
    """Return a reason without what does not change its words."""
    return " ".join(reason.split()).casefold()


def _gates_of(base: Side) -> list[Gate]:
    """Return the gate of the base, and the one with which its numbers were accepted: a weaker one would hide a fall."""
    blocks = [base.block.get("gate") if base.block else None, base.accepted.gate if base.accepted else None]
    gates = []
    for block in blocks:
        try:
            gates.append(parse(Gate, block, "the gate of the base"))
        except Refused:  # of an older code; `find_loosened` says so
            continue
    return [gate for number, gate in enumerate(gates) if gate not in gates[:number]]


def compare_accepted(old: Accepted, new: Accepted, gate: Gate) -> list[Row]:
    """Return a row for each gated metric that both baselines have, and one of all together, judged by this gate.

    The least margin is one image of the whole test split, also for groups, whose sizes the file does not say: for a
    group the share of one image is larger, so this is stricter than the gate by less than one image.
    """
    columns = [
        Column(run, metric, sign_of(metric), 100 / max(entry.mean.get(f"{metric.split('.')[0]}.n", 1), 1))
        for run, entry in old.runs.items()
        for metric in gate.all_metrics()
        if gate.concerns(run) and run in new.runs and metric in entry.mean and metric in new.runs[run].mean
    ]
    if not columns:
        return []
    seeds = sorted({seed for side in (old, new) for entry in side.runs.values() for seed in _values(entry)})
    before, after = (
        np.array([[_values(side.runs[c.run]).get(s, {}).get(c.metric, np.nan) for c in columns] for s in seeds])
        for side in (old, new)
    )
    single, together = compare_all(before, after, columns, gate.primary, gate.level)
    rows = []
    for k, column in enumerate(columns):
        was, now = (side.runs[column.run].mean[column.metric] for side in (old, new))
        fall, margin = float(single.fall[k]), float(single.margin[k])
        rows.append(Row(column.run, column.metric, was, now, now - was, margin, _is_worse(fall, margin)))
    if together is not None and _is_worse(fall := float(together.fall[0]), float(together.margin[0])):
        rows.append(Row(TOGETHER, "standard deviations", 0.0, -fall, -fall, float(together.margin[0]), True))
    return rows


def _values(entry: AcceptedRun) -> dict[int, dict[str, float]]:
    return {seed.seed: seed.metrics for seed in entry.seeds.values()}


def _is_worse(fall: float, margin: float) -> bool:
    """Tell whether a fall counts. With one accepted seed the margin is nan, and every fall does."""
    return fall > 0 and not fall <= margin


def _describe(row: Row) -> str:
    if row.run == TOGETHER:
        return f"{TOGETHER} fall by {-row.new:.2f} accepted standard deviations, margin {row.margin:.2f}"
    return f"{row.run} {row.metric} falls from {row.old:.2f} to {row.new:.2f}, margin {row.margin:.2f}"


def _find_gone(old: Accepted, new: Accepted, gates: Sequence[Gate]) -> list[str]:
    """Return what of the old baseline the new one can no longer be compared with, a line each."""
    lines = [f"the accepted numbers are of other data ({old.data}, now {new.data})"] if old.data != new.data else []
    for run, entry in old.runs.items():
        after = new.runs.get(run)
        if after is None:
            retired = f", retired: {new.retired[run]}" if run in new.retired else ""
            lines.append(f"{run} is no longer accepted{retired}")
            continue
        if gone := sorted(set(_values(entry)) - set(_values(after))):
            lines.append(f"{run}: accepted seeds {', '.join(map(str, gone))} are gone")
        metrics = {metric for gate in gates for metric in gate.all_metrics()} & set(entry.mean)
        lines += [f"{run}: {metric} is no longer accepted" for metric in sorted(metrics - set(after.mean))]
    return lines


def find_loosened(base: Side, here: Side) -> list[str]:
    """Return a line for each way in which the gate sees less than that of the base.

    Without an accepted baseline on the base, its gate compared nothing, and nothing can be loosened.
    """
    if base.accepted is None or base.block is None:
        return []
    if here.block is None:
        return ["the benchmark is removed"]
    try:
        old = parse(Gate, base.block.get("gate"), "gate")
    except Refused as error:
        return [f"the gate of the base cannot be read by this code, so nobody can compare it ({error.message})"]
    new = parse(Gate, here.block.get("gate"), f"conf/base/parameters/{base.accepted.benchmark}.yml, gate")
    return [*_settings(old, new), *_runs(old, new, base.block, here.block)]


def _settings(old: Gate, new: Gate) -> list[str]:
    """Return how settings of the gate are loosened. A larger level or ceiling lets wider margins pass."""
    lines = ["gate.against: accepted -> nothing"] if (old.against, new.against) == ("accepted", "nothing") else []
    lines += [
        f"gate.{key}: {getattr(old, key):g} -> {getattr(new, key):g}"
        for key in ("level", "ceiling")
        if getattr(new, key) > getattr(old, key)
    ]
    if old.primary != new.primary:  # it has 90 % of the risk, so the margin of the old one widens
        lines.append(f"gate.primary: {old.primary} -> {new.primary}")
    lines += [f"{metric} gates no more" for metric in old.all_metrics() if metric not in new.all_metrics()]
    return lines


def _runs(old: Gate, new: Gate, base: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return which runs or seeds are gone, and which numbers of papers gate no more, or less strictly."""
    lines = []
    for run in base["runs"]:
        if run not in here["runs"]:
            lines.append(f"{run} is no longer run")
            continue
        if old.concerns(run) and not new.concerns(run) and new.against == "accepted":
            lines.append(f"{run} gates no more")
        if gone := sorted(_seeds(base, run) - _seeds(here, run)):
            lines.append(f"{run}: seeds {', '.join(map(str, gone))} are gone")
        was, now = (_paper(block, run) for block in (base, here))
        if was.get("gates") and (
            not now.get("gates") or was.get("value") != now.get("value") or _tolerance(now) > _tolerance(was)
        ):
            lines.append(f"{run}: the paper's number gates less strictly")
    return lines


def _seeds(block: Mapping[str, Any], run: str) -> set[int]:
    """Return the numbers of a run's seeds."""
    named = block["seeds"]
    return {named[name] for name in block["runs"][run].get("seeds") or named}


def _paper(block: Mapping[str, Any], run: str) -> dict[str, Any]:
    return dict(block.get("reported") or {}) | dict(block["runs"][run].get("reported") or {})


def _tolerance(reported: Mapping[str, Any]) -> float:
    return float(reported.get("tolerance") or 0)
