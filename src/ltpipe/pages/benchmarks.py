"""docs/benchmarks.md: one section for each benchmark, from its file and its source."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltpipe.benchmark import Benchmark, TableRow, load
from ltpipe.data.checks.validate import Summary

HEADER = """# Benchmarks

Written by `ltpipe generate` from `conf/base/parameters` and `src/ltpipe/data/sources`; edit those, not
this. Sizes are what the gate of the data demands of a manifest, in images; costs are estimates. A reported number that
gates fails the build where the mean over seeds is farther from it than its tolerance; one that does not says why.
"""


def sizes(counts: list[int] | Summary) -> str:
    """Images of a split and of its largest and smallest class, as far as they are stated."""
    if isinstance(counts, list):
        spread = f"{counts[0]:,} each" if min(counts) == max(counts) else f"{max(counts):,} to {min(counts):,}"
        return f"{sum(counts):,} ({spread})"
    stated = counts.stated()
    words = [f"{stated['total']:,}"] if "total" in stated else []
    if "largest" in stated:
        words.append(f"({stated['largest']:,} to {stated.get('smallest', 0):,} a class)")
    elif "classes" in stated and not words:
        words.append(f"images of {stated['classes']:,} classes")
    return " ".join(words) or "stated in part"


def rho(spec: Benchmark) -> str:
    """Largest / smallest class of the split that makes the groups; - where it is not stated."""
    split = spec.expect.groups.split
    counts = spec.expect.class_counts[split] if isinstance(split, str) else None
    if isinstance(counts, list):
        return f"{max(counts) / max(min(counts), 1):.4g}"
    if isinstance(counts, Summary) and counts.largest and counts.smallest:
        return f"{counts.largest / counts.smallest:.4g}"
    options = spec.split.config()
    listed = getattr(options, "sizes", None)
    found = max(listed) / min(listed) if listed else getattr(options, "rho", None)
    return f"{found:.4g}" if found else "-"


def groups(spec: Benchmark) -> str:
    """The rule of many, medium, few in words."""
    rule = spec.expect.groups
    if rule.by == "count":
        return f"> {rule.many}, {rule.medium} to {rule.many}, < {rule.medium} images"
    return f"{rule.many}, {rule.medium}, {spec.expect.classes - rule.many - rule.medium} classes by size"


def protocols(spec: Benchmark) -> str:
    """Each protocol with its splits."""
    return ", ".join(f"{name} = ({p.train}, {p.test})" for name, p in spec.evaluate.protocols.items())


def overview(specs: Mapping[str, Benchmark]) -> list[str]:
    """One row a benchmark."""
    rows = [
        "| benchmark | classes | rho | training images | protocols | groups | image |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, spec in specs.items():
        trains = dict.fromkeys(p.train for p in spec.evaluate.protocols.values())
        images = ", ".join(f"{split} {sizes(spec.expect.class_counts[split])}" for split in trains)
        cells = (
            f"[{name}](#{name})",
            f"{spec.expect.classes:,}",
            rho(spec),
            images,
            ", ".join(spec.evaluate.protocols),
        )
        rows.append(f"| {' | '.join(cells)} | {groups(spec)} | {spec.model.image} |")
    return rows


def header(path: Path) -> list[str]:
    """The comment at the top of a benchmark's file."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return lines


def data(spec: Benchmark) -> list[str]:
    """How to get the source's images, and their licence."""
    module = spec.source.module()
    dataset = getattr(module, "DATASET", None)
    if dataset is not None:
        ways = inspect.cleandoc(dataset.obtain).splitlines()
        obtain = [*(f"* {line.strip()}" for line in ways), f"* then name the folder: `{dataset.variable}=/path`"]
    elif variable := getattr(module, "VARIABLE", None):
        obtain = [f"* name the folder by `{variable}=/path`" + (", or let it be fetched" if _fetched(module) else "")]
    else:
        obtain = ["* fetched, and verified by its checksum" if _fetched(module) else "* embedded, nothing to fetch"]
    return [*obtain, f"* licence: {' '.join(module.NOTICE.split())}"]


def _fetched(module: Any) -> bool:
    return hasattr(module, "REMOTE") or hasattr(module, "LAYOUT")


def reported(name: str, row: TableRow) -> str:
    """One run's row of the table."""
    found, method = row.reported, row.train.method + _options(row) + _start(row)
    if found.value is None:
        return f"| {name} | {method} | - | - | - | - | {found.why} |"
    use = "gates" if found.gates else f"does not gate: {found.why}"
    return f"| {name} | {method} | {found.value} | {found.tolerance} | {found.metric} | {found.source} | {use} |"


def _options(row: TableRow) -> str:
    """The method's options, and where the run's recipe is not the benchmark's."""
    chosen = row.train.options | {f"schedule.{key}": value for key, value in row.train.schedule.items()}
    return f" ({', '.join(f'{key} {value}' for key, value in chosen.items())})" if chosen else ""


def _start(row: TableRow) -> str:
    return f", from {row.train.start_from}" if row.train.start_from else ""


def section(name: str, spec: Benchmark, path: Path) -> str:
    """One benchmark's section."""
    splits = [f"* {split}: {sizes(counts)}" for split, counts in spec.expect.class_counts.items()]
    table = ["| run | method | reported | tolerance | metric | source | use |", "|---|---|---|---|---|---|---|"]
    lines = [f"## {name}", "", "```", *header(path), "```", "", *splits, f"* protocols: {protocols(spec)}"]
    lines += [f"* groups (many, medium, few): {groups(spec)}", f"* split kind: `{spec.split.kind}`", "", "Data:", ""]
    lines += [*data(spec), "", *table, *(reported(run, row) for run, row in spec.runs.items()), ""]
    return "\n".join(lines)


def text(root: Path) -> str:
    """The whole page."""
    specs = load(root / "conf/base")
    folder = root / "conf/base/parameters"
    sections = [section(name, spec, folder / f"{name}.yml") for name, spec in specs.items()]
    return "\n".join([HEADER, *overview(specs), "", *sections])
