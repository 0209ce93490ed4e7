"""`ltpipe accept`: accept the measured numbers as the baseline of the gate; the only writer of conf/accepted.

    ltpipe accept digits_glt --reason "first baseline"

Reads the metrics and predictions of every run and seed of the benchmark, and prints what changes.
"""

import json
import sys
from typing import Any

import click
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DatasetError

from ltpipe.benchmark import Benchmark, load
from ltpipe.config.parameters import benchmark_names
from ltpipe.config.spec import Refused
from ltpipe.evaluation.baseline import build_baseline
from ltpipe.pipeline_registry import project_root
from ltpipe.storage.atomic import write_atomically


@click.command("accept")
@click.argument("benchmark")
@click.option("--reason", required=True, help="Why these numbers are right; kept with them.")
def command(benchmark: str, reason: str) -> None:
    """Accept the measured numbers of BENCHMARK as its baseline."""
    root = project_root()
    if benchmark not in (known := benchmark_names(root / "conf/base")):
        raise Refused(f"no benchmark {benchmark!r}; benchmarks: {', '.join(known)}")
    spec = load(root / "conf/base", [benchmark])[benchmark]
    if not reason.strip():
        raise Refused("--reason must say why")
    bootstrap_project(root)
    with KedroSession.create(project_path=root) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
        cells = _load_cells(catalog, benchmark, spec)
        before: dict[str, Any] = catalog.load(f"{benchmark}.accepted") or {"runs": {}}
        path = catalog.get(f"{benchmark}.accepted").path
    try:
        after = build_baseline(benchmark, cells, reason.strip())
    except ValueError as error:
        raise Refused(str(error)) from None
    write_atomically(path, (json.dumps(after, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    sys.stdout.write("".join(_changes(before, after, spec.gate.metrics)))
    sys.stdout.write(
        f"wrote {path.relative_to(root)}; judge again: kedro run --pipeline={benchmark} --tags=judge,gate\n"
    )


def _load_cells(catalog: Any, benchmark: str, spec: Benchmark) -> list[tuple[Any, Any]]:
    """Return metrics and predictions of every cell. Raises Refused if one is missing."""
    cells = [f"{benchmark}.{run}.{seed}" for run in spec.runs for seed in spec.seeds_of(run)]
    try:
        return [(catalog.load(f"{cell}.metrics"), catalog.load(f"{cell}.predictions")) for cell in cells]
    except DatasetError as error:
        raise Refused(f"not every cell is measured; kedro run --pipeline={benchmark} first ({error})") from None


def _changes(before: dict[str, Any], after: dict[str, Any], metrics: list[str]) -> list[str]:
    """Return one line for each gated metric: its old and its new mean."""
    lines = []
    for run, entry in after["runs"].items():
        old = before["runs"].get(run, {}).get("mean", {})
        for metric in [m for m in metrics if m in entry["mean"]]:
            was = f"{old[metric]:.2f}" if metric in old else "-"
            lines.append(f"{run} {metric}: {was} -> {entry['mean'][metric]:.2f} (n {entry['n']})\n")
    return lines


if __name__ == "__main__":
    command()
