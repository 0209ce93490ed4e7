"""Accept what was measured as the baseline that the gate compares with: the only writer of conf/accepted.

    python -m ltpipe.accept digits_glt --reason "first baseline"

Reads the metrics and predictions of every run and seed of the benchmark, and says what changes.
"""

import json
import sys
from typing import Any

import click
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DatasetError

from ltpipe.atomic import write
from ltpipe.benchmark import load
from ltpipe.evaluation.baseline import baseline
from ltpipe.parameters import names
from ltpipe.pipeline_registry import project
from ltpipe.specs import Refused


@click.command()
@click.argument("benchmark")
@click.option("--reason", required=True, help="Why these numbers are right; kept with them.")
def main(benchmark: str, reason: str) -> None:
    """Accept the measured numbers of BENCHMARK as its baseline."""
    root = project()
    if benchmark not in (known := names(root / "conf/base")):
        raise Refused(f"no benchmark {benchmark!r}; benchmarks: {', '.join(known)}")
    specs = load(root / "conf/base", [benchmark])
    if not reason.strip():
        raise Refused("--reason must say why")
    bootstrap_project(root)
    with KedroSession.create(project_path=root) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
        cells = [
            f"{benchmark}.{run}.{seed}" for run in specs[benchmark].runs for seed in specs[benchmark].seeds_of(run)
        ]
        try:
            found = [(catalog.load(f"{cell}.metrics"), catalog.load(f"{cell}.predictions")) for cell in cells]
        except DatasetError as error:
            raise Refused(f"not every cell is measured; kedro run --pipeline={benchmark} first ({error})") from None
        before: dict[str, Any] = catalog.load(f"{benchmark}.accepted") or {"runs": {}}
        path = catalog.get(f"{benchmark}.accepted").path
    try:
        after = baseline(benchmark, found, reason.strip())
    except ValueError as error:
        raise Refused(str(error)) from None
    write(path, (json.dumps(after, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    for run, entry in after["runs"].items():
        old = before["runs"].get(run, {}).get("mean", {})
        for metric in [m for m in specs[benchmark].gate.metrics if m in entry["mean"]]:
            was = f"{old[metric]:.2f}" if metric in old else "-"
            sys.stdout.write(f"{run} {metric}: {was} -> {entry['mean'][metric]:.2f} (n {entry['n']})\n")
    sys.stdout.write(f"wrote {path.relative_to(root)}\n")


if __name__ == "__main__":
    main()
