"""What the gate sees: how often it fails on unchanged and on worse models, measured with really trained seeds.

    uv run python benchmarks/gate_sight.py train FOLDER WORK     digits_glt: 60 seeds as they are, 12 of each change
    uv run python benchmarks/gate_sight.py collect TRAINED WORK  adds seeds that `ltpipe train` wrote to TRAINED
    uv run python benchmarks/gate_sight.py report WORK           writes benchmarks/results/gate_sight.json

FOLDER holds manifest.parquet and images.npy of digits_glt (data/05_model_input/digits_glt after dvc repro). The first
command takes about 15 minutes on one CPU core, and resumes where it was stopped. Test images are predicted by torch.

draws    a baseline and a candidate of n seeds each, drawn without replacement from all seeds of the unchanged code;
         in a worse model the primary metric of one run, or of all runs, is lowered by so many points
changes  baseline: the first 12 seeds; candidate: the same seeds, trained with one change
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ltpipe.benchmark import Benchmark, load
from ltpipe.evaluation.comparison import Column, compare_all, failing
from ltpipe.evaluation.measure import flatten, split_metrics
from ltpipe.storage.atomic import write_atomically
from ltpipe.train import predict_by_torch
from ltpipe.training.train import train

SEEDS, CHANGED, DRAWS = 60, 12, 2000
FALLS = (0.0, 0.5, 1.0, 2.0, 5.0)
# name -> blocks that change, and the share of training labels that are made wrong
CHANGES: dict[str, tuple[dict[str, Any], float]] = {
    "rounding: lr x 1.000001": ({"schedule": {"lr": 0.1000001}}, 0.0),
    "lr halved": ({"schedule": {"lr": 0.05}}, 0.0),
    "2 % label noise": ({}, 0.02),
    "3 % label noise": ({}, 0.03),
    "no augmentation": ({"schedule": {"augment": {"crop": 0}}}, 0.0),
    "50 epochs for 60": ({"schedule": {"epochs": 50}}, 0.0),
    "30 epochs for 60": ({"schedule": {"epochs": 30}}, 0.0),
    "batch of 128 for 64": ({"schedule": {"batch": 128}}, 0.0),
    "no weight decay": ({"schedule": {"weight_decay": 0.0}}, 0.0),
    "width 12 for 16": ({"model": {"options": {"width": 12}}}, 0.0),
    "tau 0.5 for 1": ({"runs": {"logit_adjust": {"train": {"options": {"tau": 0.5}}}}}, 0.0),
}


def main() -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, command, argument in (("train", train_all, "folder"), ("collect", collect, "trained")):
        sub = commands.add_parser(name)
        sub.add_argument(argument, type=Path)
        sub.add_argument("work", type=Path)
        sub.set_defaults(command=command)
    last = commands.add_parser("report")
    last.add_argument("work", type=Path)
    last.set_defaults(command=report)
    arguments = vars(parser.parse_args())
    arguments.pop("command")(*arguments.values())


def train_all(folder: Path, work: Path) -> None:
    """Train the unchanged benchmark with many seeds, then each change; write values after each seed."""
    torch.set_num_threads(1)
    manifest = pd.read_parquet(folder / "manifest.parquet")
    images = np.load(folder / "images.npy")
    spec = load(Path("conf/base"), ["digits_glt"])["digits_glt"]
    for name, (blocks, noise) in {"unchanged": ({}, 0.0), **CHANGES}.items():
        path = work / "digits_glt" / f"{name.replace(' ', '_')}.json"
        values = json.loads(path.read_text()) if path.exists() else {}
        changed = Benchmark.model_validate(_merge(spec.model_dump(), blocks))
        noisy = _with_wrong_labels(manifest, noise)
        for seed in range(SEEDS if name == "unchanged" else CHANGED):
            if str(seed) not in values:
                values[str(seed)] = _train_seed(changed, noisy, manifest, images, seed)
                write_atomically(path, json.dumps(values).encode())


def _merge(base: Any, changes: Any) -> Any:
    if not isinstance(changes, dict):
        return changes
    return dict(base) | {key: _merge(base.get(key), value) for key, value in changes.items()}


def _with_wrong_labels(manifest: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the manifest with a share of the training rows in another class, drawn at random."""
    random = np.random.RandomState(1)
    rows = np.flatnonzero(manifest["split"] == "train_glt")
    wrong = random.choice(rows, round(share * len(rows)), replace=False)
    labels, classes = manifest["label"].to_numpy().copy(), manifest["label"].nunique()
    labels[wrong] = (labels[wrong] + random.randint(1, classes, len(wrong))) % classes
    names = manifest.drop_duplicates("label").set_index("label")["class_name"]
    return manifest.assign(label=labels, class_name=names.loc[labels].to_numpy())


def _train_seed(
    spec: Benchmark, noisy: pd.DataFrame, manifest: pd.DataFrame, images: np.ndarray, seed: int
) -> dict[str, dict[str, float]]:
    """Return run -> metric path -> value."""
    checkpoints: dict[str, bytes] = {}
    values = {}
    for run, row in spec.runs.items():
        start = checkpoints.get(row.train.start_from or "")
        with tempfile.TemporaryDirectory() as scratch:
            inputs = (noisy, images, Path(scratch), row.train, spec.schedule, spec.model, seed, start)
            checkpoints[run], _ = train(*inputs, cell=f"digits_glt.{run}.s{seed}", device="cpu")
        table = predict_by_torch(manifest, images, checkpoints[run], spec, run, "cpu")
        values[run] = _values(table, spec, row.train.split)
    return values


def _values(table: pd.DataFrame, spec: Benchmark, split: str) -> dict[str, float]:
    tests = {name: p.test for name, p in spec.evaluate.protocols.items() if p.train == split}
    measured = {name: split_metrics(table[table["split"] == test], spec.expect.classes) for name, test in tests.items()}
    return {key: value for key, value in flatten(measured).items() if key in spec.gate.all_metrics()}


def collect(trained: Path, work: Path) -> None:
    """Take the test predictions of every seed of tiny_imagenet_lt_32px that has all runs which are there."""
    spec = load(Path("conf/base"), ["tiny_imagenet_lt_32px"])["tiny_imagenet_lt_32px"]
    runs = [run for run in spec.runs if (trained / run).is_dir()]
    values: dict[str, Any] = {}
    for seed in sorted(path.name for path in (trained / runs[0]).iterdir()):
        files = {run: trained / run / seed / "predictions.csv" for run in runs}
        if all((path.parent / "checkpoint.safetensors").exists() for path in files.values()):
            values[seed] = {run: _values(pd.read_csv(path), spec, "train") for run, path in files.items()}
    write_atomically(work / "tiny_imagenet_lt_32px" / "unchanged.json", json.dumps(values).encode())


def report(work: Path) -> None:
    """Write rates of failing over draws, and the verdict on each change."""
    result: dict[str, Any] = {
        "what": "share of draws in which the gate fails, and its verdict on changes of digits_glt",
        "device": f"CPU, {platform.machine()}",
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "draws": DRAWS,
    }
    for folder in sorted(path for path in work.iterdir() if path.is_dir()):
        spec = load(Path("conf/base"), [folder.name])[folder.name]
        columns, seeds = _read(folder / "unchanged.json", spec)
        entry: dict[str, Any] = {"seeds": len(seeds), "runs": sorted({c.run for c in columns})}
        entry["std"] = {f"{c.run} {c.metric}": round(float(seeds[:, k].std(ddof=1)), 3) for k, c in enumerate(columns)}
        entry["fails"] = [
            row for n in (3, 5, 8, 10, 12, 15) if 2 * n <= len(seeds) for row in _draws(seeds, n, columns, spec)
        ]
        entry["changes"] = [
            _judge_change(path, seeds[:CHANGED], columns, spec)
            for path in sorted(folder.glob("*.json"))
            if path.stem != "unchanged"
        ]
        result[folder.name] = entry
    write_atomically(Path("benchmarks/results/gate_sight.json"), (json.dumps(result, indent=1) + "\n").encode())


def _read(path: Path, spec: Benchmark) -> tuple[list[Column], np.ndarray]:
    """Return the comparisons and the values, S x K, of a file."""
    values = json.loads(path.read_text())
    first = next(iter(values.values()))
    columns = [Column(run, metric, 1, 0.0) for run in first for metric in spec.gate.all_metrics()]
    return columns, np.array([[seed[c.run][c.metric] for c in columns] for seed in values.values()])


def _draws(seeds: np.ndarray, n: int, columns: list[Column], spec: Benchmark) -> Iterator[dict[str, Any]]:
    """Yield the shares of failing draws with n seeds on either side: other seeds, and taken for equal ones."""
    random = np.random.RandomState(0)
    orders = [random.permutation(len(seeds)) for _ in range(DRAWS)]
    before, after = (np.stack([seeds[order[part]] for order in orders]) for part in (slice(0, n), slice(n, 2 * n)))
    none = np.full_like(before, np.nan)
    apart = np.concatenate([before, none], axis=1), np.concatenate([none, after], axis=1)
    first = np.array([column.metric == spec.gate.primary for column in columns])
    one = first & (np.array([column.run for column in columns]) == columns[0].run)
    for fall in FALLS:
        row: dict[str, Any] = {"n": n, "points worse": fall}
        for name, where in (("all runs", first), (columns[0].run, one)):
            judged = compare_all(apart[0], apart[1] - fall * where, columns, spec.gate.primary, spec.gate.level)
            paired = compare_all(before, after - fall * where, columns, spec.gate.primary, spec.gate.level)
            row[name] = {"other seeds": _share(judged), "paired, uncorrelated": _share(paired)}
        yield row


def _share(judged: Any) -> float:
    return round(float(failing(*judged).mean()), 4)


def _judge_change(path: Path, before: np.ndarray, columns: list[Column], spec: Benchmark) -> dict[str, Any]:
    """Return mean differences in points, and which comparisons fail."""
    _, after = _read(path, spec)
    single, together = compare_all(before, after, columns, spec.gate.primary, spec.gate.level)
    failed = [f"{c.run} {c.metric}" for k, c in enumerate(columns) if single.fall[k] > single.margin[k]]
    if together is not None and together.fall[0] > together.margin[0]:
        failed.append("all together")
    differences = {f"{c.run} {c.metric}": round(-float(single.fall[k]), 2) for k, c in enumerate(columns)}
    return {"change": path.stem.replace("_", " "), "fails": bool(failed), "failed": failed, "differences": differences}


if __name__ == "__main__":
    main()
