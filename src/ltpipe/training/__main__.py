"""Train without Kedro, DVC or great-expectations, on a GPU where there is one.

    python -m ltpipe.training FOLDER --benchmark conf/base/parameters/digits_glt.yml --run ce --out results

FOLDER holds manifest.parquet and images.npy, as the stages fetch and split write them. For each run and seed OUT gets
<run>/<seed>/checkpoint.safetensors, log.csv, predictions.csv (val and test rows, by torch) and speed.json. A run that
starts from another finds that run's checkpoint in OUT. Killed and started again, the cell under way resumes; a cell
whose checkpoint is there is skipped where code, data and parameters are the same.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from ltpipe import parameters
from ltpipe.atomic import write
from ltpipe.models.spec import Model
from ltpipe.runs import Run
from ltpipe.specs import Refused, parse
from ltpipe.training.schedule import Schedule
from ltpipe.training.train import provenance, train


def blocks(path: Path, changes: tuple[str, ...]) -> dict[str, Any]:
    """The benchmark's blocks, references to other files resolved; changes: "schedule.epochs=2", values as YAML."""
    content: dict[str, Any] = parameters.blocks(path.parent, [path.stem])[path.stem]
    for change in changes:
        key, _, value = change.partition("=")
        *parents, last = key.split(".")
        block: Any = content
        for parent in parents:
            if parent not in block:
                raise Refused(f"--set {change}: no {parent!r}; there is: {', '.join(block)}")
            block = block[parent]
        block[last] = yaml.safe_load(value)
    return content


def predictions(manifest: Any, images: np.ndarray, checkpoint: bytes, run: Run, model: Model, device: str) -> Any:
    """Predicted class and its probability of each val and test row, by torch in fp32."""
    import torch

    from ltpipe.methods.base import Problem
    from ltpipe.models.servable import Servable
    from ltpipe.runs import build
    from ltpipe.weights import unpack

    weights, facts = unpack(checkpoint)
    counts = facts["classes_counts"]
    network, method = build(run, model, Problem(np.repeat(np.arange(len(counts)), counts), len(counts)))
    network.load_state_dict(weights)
    servable = Servable(network, method.predict, model).eval().to(device)
    rows = manifest[manifest["role"] != "train"]
    table = rows[["id", "source", "split", "label", "group", "attribute"]].reset_index(drop=True)
    with torch.no_grad():
        parts = [
            servable(torch.tensor(images[chunk], device=device))[1].cpu().numpy()
            for chunk in np.array_split(rows["row"].to_numpy(), max(len(rows) // 512, 1))
        ]
    chances = np.concatenate(parts)
    return table.assign(predicted=chances.argmax(axis=1), confidence=chances.max(axis=1))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--benchmark", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--run", "runs", multiple=True, help="A run of the benchmark; default: all, in order.")
@click.option("--seed", "seeds", multiple=True, help="A seed's name, e.g. s0; default: all.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--device", default="auto", help="auto (CUDA where there is one), cpu, cuda, cuda:1, ...")
@click.option("--set", "changes", multiple=True, help="A changed parameter, e.g. schedule.precision=bf16.")
def main(
    folder: Path,
    benchmark: Path,
    runs: tuple[str, ...],
    seeds: tuple[str, ...],
    out: Path,
    device: str,
    changes: tuple[str, ...],
) -> None:
    """Train runs of a benchmark on the prepared data in FOLDER."""
    import logging

    import pandas as pd
    import torch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    content = blocks(benchmark, changes)
    schedule = parse(Schedule, content["schedule"], f"{benchmark}, schedule")
    model = parse(Model, content["model"], f"{benchmark}, model")
    rows = {name: parse(Run, row["train"], f"{benchmark}, runs.{name}.train") for name, row in content["runs"].items()}
    for row in rows.values():
        schedule.changed(row.schedule)  # a wrong key fails here, not when the run's turn comes
    for kind, asked, valid in (("run", runs, rows), ("seed", seeds, content["seeds"])):
        if unknown := [name for name in asked if name not in valid]:
            raise Refused(f"no {kind} {', '.join(unknown)} in {benchmark}; there is: {', '.join(valid)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    manifest = pd.read_parquet(folder / "manifest.parquet")
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    for seed in seeds or content["seeds"]:
        for name in runs or [name for name in rows if seed in (content["runs"][name].get("seeds") or content["seeds"])]:
            run, place = rows[name], out / name / seed
            start = _start(out, run, seed)
            began = time.perf_counter()
            cell = f"{benchmark.stem}.{name}.{seed}"
            number = content["seeds"][seed]
            if _finished(place, provenance(manifest, images, run, schedule, model, number, start, cell)):
                sys.stdout.write(f"{cell}: kept, {place / 'checkpoint.safetensors'} is of this code and data\n")
                continue
            checkpoint, log = train(
                manifest, images, place, run, schedule, model, number, start, cell=cell, device=device
            )
            speed = {"seconds": time.perf_counter() - began, "device": _device(device), "torch": torch.__version__}
            table = predictions(manifest, images, checkpoint, run, model, device)
            write(place / "log.csv", log.to_csv(index=False).encode())
            write(place / "predictions.csv", table.to_csv(index=False).encode())
            write(place / "speed.json", json.dumps(speed).encode())
            write(place / "checkpoint.safetensors", checkpoint)
            right = 100 * (table["predicted"] == table["label"]).groupby(table["split"]).mean()
            shown = " ".join(f"{split} {value:.2f}" for split, value in right.items())
            sys.stdout.write(f"{cell}: {shown} ({speed['seconds']:.1f} s on {speed['device']})\n")


def _finished(place: Path, facts: dict[str, Any]) -> bool:
    from ltpipe.weights import unpack

    path = place / "checkpoint.safetensors"
    if not path.exists():
        return False
    kept = unpack(path.read_bytes())[1]
    return bool({k: v for k, v in kept.items() if k != "method"} == json.loads(json.dumps(facts)))


def _start(out: Path, run: Run, seed: str) -> bytes | None:
    if run.start_from is None:
        return None
    path = out / run.start_from / seed / "checkpoint.safetensors"
    if not path.exists():
        raise Refused(f"{path} is missing: train {run.start_from} with seed {seed} first")
    return path.read_bytes()


def _device(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"


if __name__ == "__main__":
    main()
