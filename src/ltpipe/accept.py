"""`ltpipe accept`: accept the measured numbers as the baseline of the gate; the only writer of conf/accepted.

    ltpipe accept digits_glt --reason "first baseline"
    ltpipe accept digits_glt --retire ride --reason "replaced by tade"

Reads the metrics and predictions of every run and seed of the benchmark, refuses what is not of the present state, and
prints what changes and what the gate will see.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import DatasetError

from ltpipe.benchmark import Benchmark
from ltpipe.config.parameters import benchmark_names
from ltpipe.config.shell import typed
from ltpipe.config.spec import Refused, parse
from ltpipe.evaluation.baseline import Accepted, build_baseline, check_bits, read_accepted
from ltpipe.evaluation.cells import check_cells
from ltpipe.evaluation.judge import Gate, compare_with_accepted
from ltpipe.evaluation.summary import summarise
from ltpipe.evaluation.verdict import describe_worse, require_visible
from ltpipe.pages import dvc_yaml
from ltpipe.pipeline_registry import project_root
from ltpipe.state import state
from ltpipe.storage.atomic import write_atomically


@click.command("accept")
@click.argument("benchmark")
@click.option("--reason", required=True, help="Why these numbers are right; kept with them.")
@click.option("--worse", is_flag=True, help="Accept numbers that the gate calls a regression.")
@click.option(
    "--retire",
    "retired",
    multiple=True,
    metavar="RUN",
    help="A run that is not run any more; RUN's reason is --reason.",
)
def command(benchmark: str, reason: str, worse: bool, retired: tuple[str, ...]) -> None:
    """Accept the measured numbers of BENCHMARK as its baseline."""
    root = project_root()
    if benchmark not in (known := benchmark_names(root / "conf/base")):
        raise Refused(f"no benchmark {benchmark!r}; benchmarks: {', '.join(known)}")
    if not reason.strip():
        raise Refused("--reason must say why")
    bootstrap_project(root)
    with KedroSession.create(project_path=root) as session:
        context: Any = session.load_context()  # type: ignore[attr-defined]
        if context.env not in (None, "base", "local"):
            raise Refused(f"accept takes results of the default environment, not of {context.env} (KEDRO_ENV)")
        # with what conf/local changes, as for `kedro run`
        spec = Benchmark.model_validate(context.config_loader["parameters"][benchmark])
        catalog = context.catalog
        work = Work(benchmark, spec, catalog)
        before, after = work.accept(reason.strip(), worse, retired)
        path: Path = catalog.get(f"{benchmark}.accepted").path
    write_atomically(path, (json.dumps(after, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    sys.stdout.write("".join(_changes(before, after, spec.gate.all_metrics())))
    sys.stdout.write("".join(work.sight()))
    sys.stdout.write(f"wrote {path.relative_to(root)}: commit conf/. {_judge_again(benchmark, root)}\n")


def _judge_again(benchmark: str, root: Path) -> str:
    """Return how to judge by the new baseline: by the ledger too, where there is one of this benchmark."""
    ledger = dvc_yaml.place(benchmark, root)
    repro = "dvc repro" if ledger.parent == root else f"dvc repro -R {ledger.parent.relative_to(root)}"
    ways = [typed(repro)] if ledger.exists() else []
    return f"Judge again: {' or '.join([*ways, typed(f'kedro run --pipeline={benchmark}')])}"


class Work:
    """What is measured of a benchmark, and what was accepted of it."""

    def __init__(self, name: str, spec: Benchmark, catalog: Any) -> None:
        self.name, self.spec, self.catalog = name, spec, catalog
        self.cells = self._load_cells()
        self.manifest = catalog.load(f"{name}.manifest")
        self.accepted: dict[str, Any] | None = catalog.load(f"{name}.accepted")
        by_run: dict[str, list[Any]] = {}
        for metrics, _ in self.cells:
            by_run.setdefault(metrics["cell"].split(".")[1], []).append(metrics)
        self.summaries = [summarise(spec.runs[run].reported, *metrics) for run, metrics in by_run.items()]
        self.power: Mapping[str, Any] = {}

    def accept(self, reason: str, worse: bool, retired: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the accepted baseline, before ({"runs": {}} if there was none) and after. Raises Refused."""
        present = state(self.spec.model_dump(), self._load("data_identity"), self.accepted, benchmark=self.name)
        check_cells(present, (metrics for metrics, _ in self.cells))
        before = self._read_before(retired)
        reasons = (before.retired if before else {}) | dict.fromkeys(retired, reason)
        kept = {run: why for run, why in reasons.items() if run not in self.spec.runs}
        after = build_baseline(self.name, self.cells, reason, self.spec.gate.model_dump(mode="json"), kept)
        self._refuse_gone(before, kept)
        self._refuse_worse(before, worse)
        checked = read_accepted(after, self.name)
        check_bits(checked, self.manifest, self.spec.evaluate)
        # as if measured with other seeds: a comparison with themselves would see everything
        others = [s | {"seeds": [-1 - seed for seed in s["seeds"]]} for s in self.summaries]
        self.power = compare_with_accepted(self.manifest, checked, self.spec.gate, self.spec.evaluate, others)
        require_visible(self.power["rows"])
        return self.accepted or {"runs": {}}, after

    def sight(self) -> list[str]:
        """Return what the gate sees with the new baseline, a line for each comparison."""
        return [
            f"{row['run']} {row['metric']}: a fall of {row['sees']:.2f} points is caught four times in five\n"
            for row in self.power["rows"]
            if row["sees"] is not None
        ]

    def _load(self, name: str) -> Any:
        try:
            return self.catalog.load(f"{self.name}.{name}")
        except DatasetError as error:
            raise Refused(f"not every cell is measured; kedro run --pipeline={self.name} first ({error})") from None

    def _load_cells(self) -> list[tuple[Any, Any]]:
        """Return metrics and predictions of every cell. Raises Refused if one is missing."""
        cells = [f"{run}.{seed}" for run in self.spec.runs for seed in self.spec.seeds_of(run)]
        return [(self._load(f"{cell}.metrics"), self._load(f"{cell}.predictions")) for cell in cells]

    def _read_before(self, retired: Sequence[str]) -> Accepted | None:
        """Return the accepted baseline. Raises Refused if a run that is retired is run, or was never accepted."""
        before = None if self.accepted is None else read_accepted(self.accepted, self.name)
        for run in retired:
            if run in self.spec.runs:
                raise Refused(f"--retire {run}: it is a run of {self.name}; take it out of its file first")
            if before is None or run not in before.runs:
                known = ", ".join(before.runs) if before else "none"
                raise Refused(f"--retire {run}: it was never accepted; accepted runs: {known}")
        return before

    def _refuse_gone(self, before: Accepted | None, retired: Mapping[str, str]) -> None:
        gone = sorted(set(before.runs if before else {}) - set(self.spec.runs) - set(retired))
        if gone:
            raise Refused(f"accepted runs that are not run any more: {', '.join(gone)}; say so with --retire RUN")

    def _refuse_worse(self, before: Accepted | None, worse: bool) -> None:
        """Raise Refused if the gate calls the numbers a regression, unless that is asked for.

        The gate with which they were accepted judges too: a weaker one would hide what got worse.
        """
        if before is None or worse:
            return
        where = (
            f"the gate of the accepted file, which judges too (--worse accepts without it), conf/accepted/{self.name}"
        )
        then = parse(Gate, before.gate, where)
        if fallen := [line for gate in (self.spec.gate, then) for line in self._find_worse(before, gate)]:
            lines = "\n".join(f"  {line}" for line in dict.fromkeys(fallen))
            raise Refused(f"these numbers are worse than the accepted ones:\n{lines}\nAccept them with --worse")

    def _find_worse(self, before: Accepted, gate: Gate) -> list[str]:
        compared = compare_with_accepted(self.manifest, before, gate, self.spec.evaluate, self.summaries)
        return describe_worse(compared)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """Return one line for each gated metric, run that is retired, and setting of the gate: the old and the new one."""
    lines = [f"{run}: retired\n" for run in after["retired"] if run not in before.get("retired", {})]
    changed = [key for key, value in before.get("gate", {}).items() if after["gate"].get(key) != value]
    lines += [f"gate.{key}: {before['gate'][key]} -> {after['gate'].get(key)}\n" for key in changed]
    if before.get("data") not in (None, after["data"]):
        lines.append("the old numbers are of other pictures or another split: shown, and not compared\n")
    for run, entry in after["runs"].items():
        old = before["runs"].get(run, {}).get("mean", {})
        for metric in [m for m in metrics if m in entry["mean"]]:
            was = f"{old[metric]:.2f}" if metric in old else "-"
            lines.append(f"{run} {metric}: {was} -> {entry['mean'][metric]:.2f} (n {entry['n']})\n")
    return lines


if __name__ == "__main__":
    command()
