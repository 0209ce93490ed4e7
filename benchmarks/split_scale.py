"""Seconds and peak memory of drawing and validating splits at ImageNet's scale: 1,331,167 images of 1,000 classes.

    uv run python benchmarks/split_scale.py [--repeats 3] [--files FOLDER]

The index is made up: ImageNet's number of images and range of class sizes (732 to 1,300), and random clusters with the
shares .36 .26 .15 .11 .07 .05. Each case runs in its own process, which reads the index from parquet, as the stage
does. The time is that of drawing (or validating) alone, the memory is the peak of the process. --files: a folder in
which every file of the index is made once (1.3 million of one byte each), so that validation looks for each of them;
without it, the manifest says that images are rows of an array. Writes benchmarks/results/split_scale.json.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ltpipe.benchmark import load
from ltpipe.data.checks.validate import Expect, validate
from ltpipe.data.split import Split, draw

ROOT = Path(__file__).parents[1]
IMAGES, CLASSES, VAL = 1_281_167, 1000, 50
SHARES = (0.36, 0.26, 0.15, 0.11, 0.07, 0.05)
GROUPS = {"by": "count", "many": 100, "medium": 20}


def class_sizes() -> np.ndarray:
    """Return 1,000 sizes from 732 to 1,300 with ImageNet's sum: nine of ten classes have 1,300, the others fewer."""
    sizes = np.full(CLASSES, 1300)
    sizes[895:] = np.linspace(1299, 732, CLASSES - 895).astype(int)
    while (missing := IMAGES - sizes.sum()) > 0:
        sizes[np.flatnonzero((sizes < 1300) & (sizes > 732))[:missing]] += 1
    return sizes


def make_index(path: Path) -> None:
    """Write the index of a made-up ILSVRC 2012, as parquet."""
    sizes = class_sizes()
    labels = np.concatenate([np.repeat(np.arange(CLASSES), sizes), np.repeat(np.arange(CLASSES), VAL)])
    train = np.arange(len(labels)) < IMAGES
    number = np.concatenate([*(np.arange(size) for size in sizes), np.arange(len(labels) - IMAGES)])
    wnid = "n" + pd.Series(labels).astype(str).str.zfill(8)
    image = (wnid + "_").where(train, "ILSVRC2012_val_") + pd.Series(number).astype(str)
    clusters = np.random.RandomState(0).choice(len(SHARES), len(labels), p=SHARES)
    table = pd.DataFrame(
        {
            "image": image,
            "source": image,
            "file": ("train/" + wnid + "/").where(train, "val/") + image + ".JPEG",
            "label": labels,
            "class_name": wnid,
            "attribute": np.where(train, clusters, -1),
            "official": np.where(train, "train", "val"),
        }
    )
    table.to_parquet(path, index=False)


def longtail_split(profile: dict[str, Any]) -> Split:
    """Return a long-tailed split with this profile, the largest classes first."""
    val = {"cut": "train", "fraction": 0.02} if profile["shape"] == "natural" else {"cut": "rest", "per_class": 20}
    options = {"profile": profile, "val": val, "test": "val", "classes": "size", "groups": GROUPS}
    return Split(kind="longtail", options=options)


def splits() -> dict[str, Split]:
    """Return the splits to measure, by name."""
    glt = load(ROOT / "conf/base", ["imagenet_glt"])["imagenet_glt"].split
    return {
        "exponential": longtail_split({"shape": "exponential", "largest": 1280, "rho": 256}),
        "pareto": longtail_split({"shape": "pareto", "largest": 1280, "rho": 256, "power": 6}),
        "list": longtail_split({"shape": "list", "sizes": "1280x100 600x300 100x400 5x200"}),
        "glt_clusters": glt,
        "natural": longtail_split({"shape": "natural"}),
    }


def run_case(name: str, index: Path, files: str) -> dict[str, float]:
    """Draw a split, or validate it, in this process; return seconds, peak memory and rows."""
    table = pd.read_parquet(index)
    began = time.perf_counter()
    manifest = draw(table, splits()[name.removeprefix("validate ")])
    if name.startswith("validate"):
        groups = {**GROUPS, "split": "train"}
        counts = {"train": {"classes": CLASSES}, "val": {"classes": CLASSES}, "test": f"{VAL}x{CLASSES}"}
        expect = Expect.model_validate({"classes": CLASSES, "class_counts": counts, "groups": groups})
        if not files:
            manifest["file"] = manifest["row"].astype(str)
        began = time.perf_counter()
        report, _ = validate(manifest, Path(files or "."), expect)
        if not report["success"]:
            raise SystemExit(json.dumps([line for line in report["expectations"] if not line["success"]]))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "peak_gib": peak, "rows": len(manifest)}


def make_files(index: Path, folder: Path) -> None:
    """Write every file of the index, one byte long, below `folder`."""
    for file in pd.read_parquet(index, columns=["file"])["file"]:
        path = folder / file
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        path.write_bytes(b"x")


def measure(name: str, index: Path, files: str, repeats: int) -> dict[str, Any]:
    """Run a case in `repeats` processes; return median and range of the seconds, and the highest peak of memory."""
    command = [sys.executable, __file__, "--case", name, "--index", str(index), "--files", files]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(repeats)]
    seconds = [run["seconds"] for run in runs]
    result = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "n": repeats}
    return result | {"peak_gib": max(run["peak_gib"] for run in runs), "rows": int(runs[0]["rows"])}


def main() -> None:
    """Measure all cases, print the results, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--files", default="", help="folder of the index's files, which are made if it has none")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(arguments.case, arguments.index, arguments.files)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index.parquet"
        make_index(index)
        if arguments.files and not Path(arguments.files, "train").exists():
            make_files(index, Path(arguments.files))
        for name in [*splits(), "validate natural"]:
            result = results[name] = measure(name, index, arguments.files, arguments.repeats)
            print(
                f"{name:18} {result['median']:6.2f} s ({result['min']:.2f} to {result['max']:.2f}, n {result['n']}), "
                f"{result['peak_gib']:.2f} GiB, {result['rows']:,} rows"
            )
    report = {
        "what": "seconds to draw (or validate) a manifest from an index of 1,331,167 images, and peak memory",
        "files_looked_up": bool(arguments.files),
        "device": f"{os.cpu_count()} CPU cores",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "cases": results,
    }
    (ROOT / "benchmarks/results/split_scale.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
