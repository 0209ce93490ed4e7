"""Seconds and peak memory of drawing and validating splits at ImageNet's scale: 1,331,167 images of 1,000 classes.

    uv run python benchmarks/split_scale.py [--repeats 3] [--files FOLDER]

The index is made up: ImageNet's number of images and range of class sizes (732 to 1,300), clusters drawn at random with
shares .36 .26 .15 .11 .07 .05. Each case runs in a process of its own, which reads the index from parquet as the stage
does; seconds are of drawing (or validating) alone, memory is the process's peak. files: a folder in which every file of
the index is made (1.3 million of one byte, once), so that validation looks each of them up; without it, the manifest
says that images are rows of an array. Writes benchmarks/results/split_scale.json.
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
from ltpipe.data.source import Source
from ltpipe.data.split import Split, draw

ROOT = Path(__file__).parents[1]
IMAGES, CLASSES, VAL = 1_281_167, 1000, 50
SHARES = (0.36, 0.26, 0.15, 0.11, 0.07, 0.05)
GROUPS = {"by": "count", "many": 100, "medium": 20}


def class_sizes() -> np.ndarray:
    """1,000 sizes from 732 to 1,300 whose sum is ImageNet's: nine in ten of 1,300, then a ramp."""
    sizes = np.full(CLASSES, 1300)
    sizes[895:] = np.linspace(1299, 732, CLASSES - 895).astype(int)
    while (missing := IMAGES - sizes.sum()) > 0:
        sizes[np.flatnonzero((sizes < 1300) & (sizes > 732))[:missing]] += 1
    return sizes


def make_index(path: Path) -> None:
    """The index of a made-up ILSVRC 2012, as parquet."""
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


def tail(shape: dict[str, Any]) -> Split:
    """A long tail on the classes by size."""
    val = {"cut": "train", "fraction": 0.02} if shape["shape"] == "natural" else {"cut": "rest", "per_class": 20}
    options = {"profile": shape, "val": val, "test": "val", "classes": "size", "groups": GROUPS}
    return Split(kind="longtail", options=options)


def splits() -> dict[str, Split]:
    """The cases by name."""
    glt = load(ROOT / "conf/base")["imagenet_glt"].split.options | {"clusters": {"count": 6}}
    return {
        "exponential": tail({"shape": "exponential", "largest": 1280, "rho": 256}),
        "pareto": tail({"shape": "pareto", "largest": 1280, "rho": 256, "power": 6}),
        "list": tail({"shape": "list", "sizes": "1280x100 600x300 100x400 5x200"}),
        "glt_clusters": Split(kind="glt_clusters", options=glt),
        "natural": tail({"shape": "natural"}),
    }


def case(name: str, index: Path, files: str) -> dict[str, float]:
    """One measurement, in this process."""
    table = pd.read_parquet(index)
    began = time.perf_counter()
    source = Source(name="imagenet2012", size=112)  # no case looks at an image
    manifest = draw(table, source, Path("raw"), splits()[name.removeprefix("validate ")])
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
    """Every file of the index, one byte long, below `folder`."""
    for file in pd.read_parquet(index, columns=["file"])["file"]:
        path = folder / file
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
        path.write_bytes(b"x")


def measure(name: str, index: Path, files: str, repeats: int) -> dict[str, Any]:
    """Median, range and peak over `repeats` processes."""
    command = [sys.executable, __file__, "--case", name, "--index", str(index), "--files", files]
    found = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(repeats)]
    seconds = [one["seconds"] for one in found]
    result = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds), "n": repeats}
    return result | {"peak_gib": max(one["peak_gib"] for one in found), "rows": int(found[0]["rows"])}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--files", default="", help="folder for the index's files; made where it is empty")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(case(asked.case, asked.index, asked.files)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index.parquet"
        make_index(index)
        if asked.files and not Path(asked.files, "train").exists():
            make_files(index, Path(asked.files))
        for name in [*splits(), "validate natural"]:
            found = results[name] = measure(name, index, asked.files, asked.repeats)
            print(
                f"{name:18} {found['median']:6.2f} s ({found['min']:.2f} to {found['max']:.2f}, n {found['n']}), "
                f"{found['peak_gib']:.2f} GiB, {found['rows']:,} rows"
            )
    report = {
        "what": "seconds to draw (or validate) a manifest from an index of 1,331,167 images, and peak memory",
        "files_looked_up": bool(asked.files),
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
