"""Write docs/results.md: reported numbers beside the numbers of the committed records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltpipe.benchmark import Benchmark, load
from ltpipe.config.spec import Refused
from ltpipe.evaluation.measure import flatten
from ltpipe.evaluation.record import Record, read_records, same_recipe
from ltpipe.evaluation.reported import compare_with_reported
from ltpipe.pages.benchmarks import read_header

FOLDER = "benchmarks/results/trained"
DIFFERS = "What still differs"  # how the part of a file's header begins that says so
HEADER = f"""# Results

Written by `ltpipe generate` from the records in `{FOLDER}`, one file for each run and seed, which
`ltpipe train --record` writes; edit neither. Rates are in percent, differences in percentage points. `measured` is the
mean over n seeds of the last epoch's network, on the test split, which selects nothing; std has n - 1 in its
denominator. A row is within its tolerance only if two standard errors of the mean are, so one seed confirms nothing.
The commands train on what `kedro run --pipeline=<benchmark> --tags=fetch,cluster,split` prepares, and a run that starts
from another one needs that one first.
"""


def render_results(root: Path) -> str:
    """Return the content of docs/results.md. root: the project's folder. Raises Refused for a record of no run."""
    specs = load(root / "conf/base")
    records = read_records(root / FOLDER)
    if unknown := sorted(set(records) - set(specs)):
        raise Refused(f"{FOLDER}: no benchmark {', '.join(unknown)}; benchmarks: {', '.join(specs)}")
    sections = [_section(name, specs[name], kept, root) for name, kept in records.items()]
    return "\n".join([HEADER, *sections])


def _section(name: str, spec: Benchmark, records: Sequence[Record], root: Path) -> str:
    """Return the section of one benchmark."""
    by_run: dict[str, list[Record]] = {}
    for record in records:
        if record.run not in spec.runs:
            raise Refused(f"{FOLDER}: {record.cell} is of no run of {name}; runs: {', '.join(spec.runs)}")
        by_run.setdefault(record.run, []).append(record)
    for run, of_run in by_run.items():
        _require_one_recipe(name, run, of_run)
    runs = [run for run in spec.runs if run in by_run]  # in the order of the benchmark's file
    numbers = ["| run | metric | reported | measured | std | n | difference | verdict | source |", "|" + "---|" * 9]
    origins = ["| run | recipe | code | data | device | wall time a seed | command |", "|" + "---|" * 7]
    numbers += [_numbers(run, spec, by_run[run]) for run in runs]
    origins += [_origin(run, spec, by_run[run]) for run in runs]
    lines = [f"## {name}", "", *_differences(root / f"conf/base/parameters/{name}.yml"), "", *numbers, "", *origins]
    return "\n".join([*lines, "", *_reasons(spec, runs), ""])


def _require_one_recipe(name: str, run: str, records: Sequence[Record]) -> None:
    """Raise Refused unless the records of a run differ in nothing but seed and time: their mean would mean nothing."""
    for key in ("parameters", "protocols", "data", "code"):
        values = [getattr(record, key) for record in records]
        if any(value != values[0] for value in values):
            raise Refused(
                f"{FOLDER}: the records of {name}.{run} differ in {key}: keep those of one recipe, data and code"
            )


def _differences(path: Path) -> list[str]:
    """Return what the file's header says of differences from the papers, as quoted lines."""
    header = read_header(path)
    first = next((i for i, line in enumerate(header) if line.startswith(DIFFERS)), len(header))
    return [f"> {line}" for line in header[first:]]


def _table(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return metric path -> mean and std over the records of one run."""
    rows = [flatten(record.metrics) for record in records]
    values = {path: [row[path] for row in rows] for path in rows[0]}
    return {
        path: {"mean": float(np.mean(v)), "std": float(np.std(v, ddof=1)) if len(v) > 1 else None}
        for path, v in values.items()
    }


def _numbers(run: str, spec: Benchmark, records: Sequence[Record]) -> str:
    """Return a row with the reported number of a run, or `-`, and the measured one."""
    reported, table, n = spec.runs[run].reported, _table(records), len(records)
    paths = (reported.metric, *spec.gate.all_metrics(), *table)  # a run is not measured by every protocol
    path = next(path for path in paths if path in table)
    measured = table[path]
    std = "-" if measured["std"] is None else f"{measured['std']:.2f}"
    said = ["-", "-", "nobody reports on it", "-"]
    if reported.value is not None and not _is_current(spec, run, records):
        said = [f"{reported.value:g} +- {reported.tolerance:g}", "-", "of another recipe", str(reported.source)]
    elif reported.value is not None:
        verdict = compare_with_reported(reported, table, n)
        said = [f"{reported.value:g} +- {reported.tolerance:g}", f"{verdict['delta']:+.2f}"]
        said += [_words(verdict, n), str(reported.source)]
    cells = [run, path, said[0], f"{measured['mean']:.2f}", std, str(n), *said[1:]]
    return f"| {' | '.join(cells)} |"


def _words(verdict: dict[str, Any], n: int) -> str:
    """Return the verdict on a reported number for the table."""
    near = abs(verdict["delta"]) <= verdict["tolerance"]
    if verdict["verdict"] == "inconclusive" and n == 1:
        return f"one seed, {'inside' if near else 'outside'} the tolerance"
    return {"pass": "within the tolerance", "inconclusive": "inconclusive: more seeds"}.get(
        verdict["verdict"], f"{verdict['verdict']} the tolerance"
    )


def _origin(run: str, spec: Benchmark, records: Sequence[Record]) -> str:
    """Return a row with what made the numbers of a run."""
    current = _is_current(spec, run, records)
    columns = [{getattr(record, key) for record in records} for key in ("code", "data", "device")]
    seconds = float(np.mean([record.seconds for record in records]))
    cells = [run, "as the file states" if current else "ANOTHER than the file states", *map(_join, columns)]
    return f"| {' | '.join([*cells, _duration(seconds), _commands(records)])} |"


def _is_current(spec: Benchmark, run: str, records: Sequence[Record]) -> bool:
    """Tell whether the records are of the recipe and of the test splits that the benchmark's file states now."""
    protocols, train = spec.evaluate.protocols, spec.runs[run].train
    return all(
        record.protocols == protocols and same_recipe(record, train, spec.schedule, spec.model) for record in records
    )


def _join(values: set[str]) -> str:
    return ", ".join(sorted(values))


def _commands(records: Sequence[Record]) -> str:
    """Return the command of the records; of several seeds, with all of them."""
    first, *others = (record.command.split() for record in records)
    seeds = [word for command in others for word in ("--seed", command[command.index("--seed") + 1])]
    place = first.index("--seed") + 2
    return f"`{' '.join([*first[:place], *seeds, *first[place:]])}`"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _reasons(spec: Benchmark, runs: Sequence[str]) -> list[str]:
    """Return a line for each run whose number does not gate: why."""
    return [f"* {run}: {spec.runs[run].reported.why}" for run in runs if spec.runs[run].reported.why]
