"""`ltpipe train`: train runs of a benchmark without Kedro, DVC and great-expectations, on a GPU if there is one.

    ltpipe train FOLDER --benchmark conf/base/parameters/digits_glt.yml --run ce --out results

FOLDER holds manifest.parquet and images.npy as the stage split writes them, and originals.parquet, pictures.npy and
picture_sizes.npy if it wrote them. If the benchmark takes random boxes from files, --pictures names their folder.
For each run and seed, OUT gets <run>/<seed>/checkpoint.safetensors, log.csv, predictions.csv (val and test rows, by
torch) and speed.json. A run that starts from another one takes that run's checkpoint from OUT. SIGINT, SIGTERM and
SIGHUP end a training after a step, which is kept. If the command is started again, the current cell resumes, and a cell
whose checkpoint has the same code, data and parameters is skipped.

--record FOLDER also keeps the numbers of each cell, with all that made them, as FOLDER/<benchmark>/<run>/<seed>.json.
Those below benchmarks/results/trained are the rows of docs/results.md.
"""

import json
import logging
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from ltpipe.benchmark import Benchmark
from ltpipe.config.parameters import load_blocks
from ltpipe.config.spec import Refused, parse
from ltpipe.data.source import Source
from ltpipe.evaluation.record import Record, protocol_metrics, require_test_images, whole_recipe
from ltpipe.storage.atomic import write_atomically
from ltpipe.storage.table import Table
from ltpipe.training.scratch import discard

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("ltpipe.train")
CHECKPOINT = "checkpoint.safetensors"
# files of whole pictures, as the stage split names them
PACKED = ("pictures", "picture_sizes")
# Blocks of the stages before and after training, which this command does not run.
NO_EFFECT = ("source", "cluster", "split", "evaluate", "parity", "gate", "claims", "reported")


def load_benchmark(path: Path, changes: tuple[str, ...]) -> Benchmark:
    """Return the benchmark of a file, checked as a whole; changes: "schedule.epochs=2", values as YAML.

    Raises Refused if a change has no effect, or names a key that is none: with the key meant, where it is obvious.
    """
    content: dict[str, Any] = load_blocks(path.parent, [path.stem])[path.stem]
    spec = parse(Benchmark, content, f"{path}, {path.stem}")
    if not changes:
        return spec
    for change in changes:
        _set(content, change)
    try:
        return parse(Benchmark, content, f"{path}, {path.stem} with --set")
    except Refused as refused:
        known = list(_keys(spec.model_dump()))
        hints = (_meant(change.partition("=")[0], known) for change in changes)
        raise Refused(refused.message + "".join(f"\n  did you mean {hint}?" for hint in hints if hint)) from None


def _set(content: dict[str, Any], change: str) -> None:
    """Change one value of a benchmark in place."""
    key, equals, value = change.partition("=")
    if not equals:
        raise Refused(f"--set {change}: write it as key=value, e.g. schedule.epochs=2")
    *parents, last = parts = key.split(".")
    if parts[0] in NO_EFFECT or (parts[0] == "runs" and parts[2:3] == ["reported"]):
        valid = ", ".join(block for block in Benchmark.model_fields if block not in NO_EFFECT)
        raise Refused(
            f"--set {change}: has no effect here, where prepared data are trained on and nothing is exported or "
            f"judged; valid blocks: {valid} (of runs not `reported`)"
        )
    block: Any = content
    for parent in parents:
        block = block.setdefault(parent, {}) if isinstance(block, dict) else None
    if not isinstance(block, dict):
        raise Refused(f"--set {change}: {'.'.join(parents)} is no block")
    try:
        block[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise Refused(f"--set {change}: {value} is not YAML; write a value as in a benchmark's file") from None


def _keys(block: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a block and of the blocks in it: schedule, schedule.epochs, ..."""
    for key, value in block.items():
        yield str(key)
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in _keys(value))


def _meant(key: str, known: list[str]) -> str | None:
    """Return the known key that `key` obviously stands for, if any: epochs or schedule.epoch -> schedule.epochs."""
    if key in known:
        return None
    last = key.rpartition(".")[2]
    ends = sorted((path.count("."), path) for path in known if path.rpartition(".")[2] == last)
    if ends and (len(ends) == 1 or ends[0][0] < ends[1][0]):  # schedule.epochs, and not a run's schedule.epochs
        return ends[0][1]
    beside = [path for path in known if path.count(".") == key.count(".")]
    return next(iter(get_close_matches(key, beside, n=1, cutoff=0.85)), None)


@dataclass(frozen=True)
class Workplace:
    """Where cells are trained: the prepared data, the folder of results, the device.

    pictures: opens whole pictures, if random boxes are of them. changes: what --set changed. records: folder of the
    records, if they are kept.
    """

    name: str
    spec: Benchmark
    manifest: Table
    images: "np.ndarray"
    out: Path
    device: str
    pictures: Callable[[int], Any] | None = None
    changes: tuple[str, ...] = ()
    records: Path | None = None

    def cells(self, runs: tuple[str, ...], seeds: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """Yield run and seed of each requested cell (default: all). Raises Refused for an unknown name."""
        for kind, requested, valid in (("run", runs, self.spec.runs), ("seed", seeds, self.spec.seeds)):
            if unknown := [name for name in requested if name not in valid]:
                raise Refused(f"no {kind} {', '.join(unknown)} in {self.name}; there is: {', '.join(valid)}")
        for seed in seeds or self.spec.seeds:
            for run in runs or [run for run in self.spec.runs if seed in self.spec.seeds_of(run)]:
                yield run, seed

    def train_cell(self, run: str, seed: str) -> str:
        """Train one cell unless its checkpoint is current, write its results, and return one line to print.

        What was kept to go on with is deleted last, when the results are on disk.
        """
        from ltpipe.training.train import is_current, provenance, train

        spec, folder = self.spec, self.out / run / seed
        row, number, cell = spec.runs[run].train, spec.seeds[seed], f"{self.name}.{run}.{seed}"
        start = self._start(row.start_from, seed)
        facts = provenance(self.manifest, self.images, row, spec.schedule, spec.model, number, start, cell)
        if (folder / CHECKPOINT).exists() and is_current((folder / CHECKPOINT).read_bytes(), facts):
            self._record(run, seed, facts)
            discard(folder)
            return f"{cell}: kept, {folder / CHECKPOINT} is of this code, data and parameters"
        inputs = (self.manifest, self.images, folder, row, spec.schedule, spec.model, number, start, self.pictures)
        checkpoint, history, cost = train(*inputs, cell=cell, device=self.device)
        table = predict_by_torch(self.manifest, self.images, checkpoint, spec, run, self.device)
        self._write(run, folder, checkpoint, history, cost, table)
        self._record(run, seed, facts)
        discard(folder)
        right = 100 * (table["predicted"] == table["label"]).groupby(table["split"]).mean()
        shown = " ".join(f"{split} {value:.2f}" for split, value in right.items())
        return f"{cell}: {shown} ({cost['seconds']:.1f} s on {self._device_name(run)})"

    def _start(self, run: str | None, seed: str) -> bytes | None:
        if run is None:
            return None
        path = self.out / run / seed / CHECKPOINT
        if not path.exists():
            raise Refused(f"{path} is missing: train {run} with seed {seed} first")
        return path.read_bytes()

    def _write(
        self, run: str, folder: Path, checkpoint: bytes, log: Table, cost: Mapping[str, Any], table: Table
    ) -> None:
        """Write the results; the checkpoint last, because it says that the cell is finished."""
        versions = {name: version(name) for name in ("torch", "torchvision", "pillow")}
        versions["python"] = platform.python_version()
        speed = {"seconds": cost["seconds"], "device": self._device_name(run), "versions": versions}
        write_atomically(folder / "log.csv", log.to_csv(index=False).encode())
        write_atomically(folder / "predictions.csv", table.to_csv(index=False).encode())
        write_atomically(folder / "speed.json", json.dumps(speed).encode())
        write_atomically(folder / CHECKPOINT, checkpoint)

    def _device_name(self, run: str) -> str:
        """Return the name of the GPU, or of the processor with the number of threads that the run trains with."""
        import torch

        from ltpipe.training.cost import device_name

        device = torch.device(self.device)
        if device.type == "cuda":
            return device_name(device)
        schedule = self.spec.schedule.with_changes(self.spec.runs[run].train.schedule)
        threads = schedule.threads or torch.get_num_threads()
        return f"{device_name(device)}, {threads} thread{'s' if threads > 1 else ''}"

    def _record(self, run: str, seed: str, facts: Mapping[str, Any]) -> None:
        """Write the record of a finished cell, if records are kept: from its files, so also of a cell that was kept."""
        import pandas as pd

        if self.records is None:
            return
        folder, train = self.out / run / seed, self.spec.runs[run].train
        predictions = pd.read_csv(folder / "predictions.csv")
        values = {key: facts[key] for key in ("cell", "seed", "code", "recipe", "data")}
        values |= json.loads((folder / "speed.json").read_text())
        values |= {
            "parameters": whole_recipe(train, self.spec.schedule, self.spec.model),
            "protocols": self.spec.evaluate.protocols,
            "command": self._command(run, seed),
            "finished": datetime.now(UTC).date().isoformat(),
            "metrics": protocol_metrics(predictions, self.spec.evaluate, train, len(facts["classes"])),
        }
        record = parse(Record, values, f"the record of {facts['cell']}, from {folder}")
        path = self.records / self.name / run / f"{seed}.json"
        write_atomically(path, (record.model_dump_json(indent=1) + "\n").encode())

    def _command(self, run: str, seed: str) -> str:
        """Return what trains the cell in any clone: the folders are the project's, not those of this machine."""
        words = ["ltpipe", "train", f"data/05_model_input/{self.name}"]
        words += [
            "--benchmark",
            f"conf/base/parameters/{self.name}.yml",
            "--run",
            run,
            "--seed",
            seed,
            "--out",
            "results",
        ]
        if self.spec.source.pictures == "files":
            words += ["--pictures", f"data/01_raw/{self.spec.source.name}"]
        return shlex.join([*words, *(word for change in self.changes for word in ("--set", change))])


def open_pictures(folder: Path, source: Source, raw: Path | None) -> Callable[[int], Any] | None:
    """Return what opens the whole pictures of a prepared folder, if the source takes random boxes from them.

    raw: the source's folder, of which `files` are. Raises Refused if it is not named.
    """
    import numpy as np
    import pandas as pd

    from ltpipe.data.originals import open_files, open_packed

    if source.pictures == "squares":
        return None
    originals = pd.read_parquet(folder / "originals.parquet")
    if source.pictures == "packed":
        return open_packed(originals, *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in PACKED))
    if raw is None:
        raise Refused(
            f"the benchmark takes random boxes from the files of {source.name}: name their folder, data/01_raw/"
            f"{source.name} where the data were prepared, by --pictures"
        )
    return open_files(originals, source, raw)


def predict_by_torch(
    manifest: Table, images: "np.ndarray", checkpoint: bytes, spec: Benchmark, run: str, device: str
) -> Table:
    """Return predicted class and its probability for each val and test row, by torch in fp32."""
    import numpy as np
    import torch

    from ltpipe.recipe.run import rebuild

    servable = rebuild(checkpoint, spec.runs[run].train, spec.model)[0].to(device)
    rows = manifest[manifest["role"] != "train"]
    table = rows[["id", "source", "split", "label", "group", "attribute"]].reset_index(drop=True)
    with torch.no_grad():
        parts = [
            servable(torch.tensor(images[chunk], device=device))[1].cpu().numpy()
            for chunk in np.array_split(rows["row"].to_numpy(), max(len(rows) // 512, 1))
        ]
    chances = np.concatenate(parts)
    return table.assign(predicted=chances.argmax(axis=1), confidence=chances.max(axis=1))


@click.command("train")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--benchmark", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--run", "runs", multiple=True, help="A run of the benchmark; default: all, in order.")
@click.option("--seed", "seeds", multiple=True, help="A seed's name, e.g. s0; default: all.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--device", default="auto", help="auto (CUDA if there is a device), cpu, cuda, cuda:1, ...")
@click.option(
    "--pictures", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The source's folder of files."
)
@click.option("--set", "changes", multiple=True, help="A changed parameter of training, e.g. schedule.precision=bf16.")
@click.option(
    "--record",
    "records",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep each cell's numbers below this folder; benchmarks/results/trained is that of docs/results.md.",
)
def command(
    folder: Path,
    benchmark: Path,
    runs: tuple[str, ...],
    seeds: tuple[str, ...],
    out: Path,
    device: str,
    pictures: Path | None,
    changes: tuple[str, ...],
    records: Path | None,
) -> None:
    """Train runs of a benchmark on the prepared data in FOLDER (manifest.parquet and images.npy)."""
    spec = load_benchmark(benchmark, changes)

    import numpy as np
    import pandas as pd
    import torch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    manifest = pd.read_parquet(folder / "manifest.parquet")
    if records is not None:
        require_test_images(manifest, spec.evaluate)
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    opener = open_pictures(folder, spec.source, pictures)
    place = Workplace(benchmark.stem, spec, manifest, images, out, device, opener, changes, records)
    cells = list(place.cells(runs, seeds))
    for number, (run, seed) in enumerate(cells, 1):
        if len(cells) > 1:
            log.info("cell %d of %d: %s.%s.%s", number, len(cells), place.name, run, seed)
        sys.stdout.write(f"{place.train_cell(run, seed)}\n")


if __name__ == "__main__":
    command()
