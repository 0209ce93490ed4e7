"""Write docs/benchmarks.md: an overview table, and a section for each benchmark from its file and its source."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltpipe.benchmark import Benchmark, TableRow, load
from ltpipe.data.checks.validate import Summary

HEADER = """# Benchmarks

Written by `ltpipe generate` from `conf/base/parameters` and `src/ltpipe/data/sources`; edit those, not this page.
Sizes are numbers of images, as the validation requires them of a manifest; costs are estimates. If a reported number
gates, the gate fails when the mean over seeds is farther from it than its tolerance; if it does not gate, the table
says why.
"""


def describe_sizes(counts: list[int] | Summary) -> str:
    """Return the number of images of a split and of its largest and smallest class, as far as they are stated."""
    if isinstance(counts, list):
        spread = f"{counts[0]:,} each" if min(counts) == max(counts) else f"{max(counts):,} to {min(counts):,}"
        return f"{sum(counts):,} ({spread})"
    stated = counts.stated_values()
    words = [f"{stated['total']:,}"] if "total" in stated else []
    if "largest" in stated:
        words.append(f"({stated['largest']:,} to {stated.get('smallest', 0):,} a class)")
    elif "classes" in stated and not words:
        words.append(f"images of {stated['classes']:,} classes")
    return " ".join(words) or "stated in part"


def imbalance(spec: Benchmark) -> str:
    """Return largest / smallest class of the split that defines the groups; "-" if it is stated nowhere."""
    split = spec.expect.groups.split
    counts = spec.expect.class_counts[split] if isinstance(split, str) else None
    if isinstance(counts, list):
        return f"{max(counts) / max(min(counts), 1):.4g}"
    if isinstance(counts, Summary) and counts.largest and counts.smallest:
        return f"{counts.largest / counts.smallest:.4g}"
    # not in the expectations: some split kinds have the sizes of their classes, or rho itself, as an option
    options = spec.split.config()
    listed = getattr(options, "sizes", None)
    ratio = max(listed) / min(listed) if listed else getattr(options, "rho", None)
    return f"{ratio:.4g}" if ratio else "-"


def describe_groups(spec: Benchmark) -> str:
    """Return the rule of the groups many, medium and few in words."""
    rule = spec.expect.groups
    if rule.by == "count":
        return f"> {rule.many}, {rule.medium} to {rule.many}, < {rule.medium} images"
    return f"{rule.many}, {rule.medium}, {spec.expect.classes - rule.many - rule.medium} classes by size"


def describe_protocols(spec: Benchmark) -> str:
    """Return each protocol with its training and test split."""
    return ", ".join(f"{name} = ({p.train}, {p.test})" for name, p in spec.evaluate.protocols.items())


def overview_table(specs: Mapping[str, Benchmark]) -> list[str]:
    """Return the lines of a table with a row for each benchmark."""
    rows = [
        "| benchmark | classes | rho | training images | protocols | groups | image |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, spec in specs.items():
        trains = dict.fromkeys(p.train for p in spec.evaluate.protocols.values())
        images = ", ".join(f"{split} {describe_sizes(spec.expect.class_counts[split])}" for split in trains)
        cells = (
            f"[{name}](#{name})",
            f"{spec.expect.classes:,}",
            imbalance(spec),
            images,
            ", ".join(spec.evaluate.protocols),
        )
        rows.append(f"| {' | '.join(cells)} | {describe_groups(spec)} | {spec.model.image} |")
    return rows


def read_header(path: Path) -> list[str]:
    """Return the lines of the comment at the top of a benchmark's file, without the number signs."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return lines


def describe_data(spec: Benchmark) -> list[str]:
    """Return lines that say how to get the source's images, and under which licence they are."""
    module = spec.source.module()
    dataset = getattr(module, "DATASET", None)
    if dataset is not None:
        ways = inspect.cleandoc(dataset.obtain).splitlines()
        obtain = [*(f"* {line.strip()}" for line in ways), f"* then name the folder: `{dataset.variable}=/path`"]
    elif variable := getattr(module, "VARIABLE", None):
        obtain = [f"* name the folder by `{variable}=/path`" + (", or let it be fetched" if _can_fetch(module) else "")]
    else:
        obtain = ["* fetched, and verified by its checksum" if _can_fetch(module) else "* embedded, nothing to fetch"]
    return [*obtain, f"* licence: {' '.join(module.NOTICE.split())}"]


def _can_fetch(module: Any) -> bool:
    """Tell whether the source can download its files."""
    return hasattr(module, "REMOTE") or hasattr(module, "LAYOUT")


def run_row(name: str, row: TableRow) -> str:
    """Return one run as a row of the table of reported numbers."""
    paper, method = row.reported, row.train.method + _describe_options(row) + _describe_start(row)
    if paper.value is None:
        return f"| {name} | {method} | - | - | - | - | {paper.why} |"
    use = "gates" if paper.gates else f"does not gate: {paper.why}"
    return f"| {name} | {method} | {paper.value} | {paper.tolerance} | {paper.metric} | {paper.source} | {use} |"


def _describe_options(row: TableRow) -> str:
    """Return the method's options, and the keys in which the run's recipe and network differ from the benchmark's."""
    chosen = row.train.options | {f"schedule.{key}": value for key, value in row.train.schedule.items()}
    chosen |= {f"model.{key}": value for key, value in row.train.model.items()}
    return f" ({', '.join(f'{key} {value}' for key, value in chosen.items())})" if chosen else ""


def _describe_start(row: TableRow) -> str:
    return f", from {row.train.start_from}" if row.train.start_from else ""


def section(name: str, spec: Benchmark, path: Path) -> str:
    """Return the section of one benchmark. path: its file."""
    splits = [f"* {split}: {describe_sizes(counts)}" for split, counts in spec.expect.class_counts.items()]
    table = ["| run | method | reported | tolerance | metric | source | use |", "|---|---|---|---|---|---|---|"]
    facts = [
        *splits,
        f"* protocols: {describe_protocols(spec)}",
        f"* groups (many, medium, few): {describe_groups(spec)}",
        f"* split kind: `{spec.split.kind}`",
    ]
    lines = [f"## {name}", "", "```", *read_header(path), "```", "", *facts, "", "Data:", "", *describe_data(spec), ""]
    lines += [*table, *(run_row(run, row) for run, row in spec.runs.items()), ""]
    return "\n".join(lines)


def render_benchmarks(root: Path) -> str:
    """Return the content of docs/benchmarks.md. root: the project's folder."""
    specs = load(root / "conf/base")
    folder = root / "conf/base/parameters"
    sections = [section(name, spec, folder / f"{name}.yml") for name, spec in specs.items()]
    return "\n".join([HEADER, *overview_table(specs), "", *sections])
