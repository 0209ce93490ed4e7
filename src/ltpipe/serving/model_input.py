"""Find and read the packed pictures that a model belongs to, for the commands that take a model and its own data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.serving.files import show
from ltpipe.storage.manifest import class_names, data_version
from ltpipe.storage.table import Table

FOLDER = Path("data/05_model_input")


def read_model_input(models: Mapping[str, Mapping[str, Any]], data: Path | None) -> tuple[Table, np.ndarray]:
    """Return manifest and images (uint8, N x H x W x 3, mapped from the file).

    models: the facts of each model, by the name that messages call it. data: folder with both; by default that of the
    first model's benchmark. Raises Refused if the folder does not hold them, or if a model is of other data.
    """
    benchmark = str(next(iter(models.values())).get("cell", "")).split(".")[0]
    folder = data or FOLDER / benchmark
    manifest, images = _read_folder(folder)
    found = {"data": data_version(manifest, images), "classes": class_names(manifest)}
    for name, facts in models.items():
        wrong = [key for key in found if facts[key] != found[key]]
        if wrong:
            said = "; ".join(f"{key} {facts[key]}, there {found[key]}" for key in wrong)
            raise Refused(f"{name} is not of the data in {show(folder)}: {said}; name its folder by --data")
    return manifest, images


def _read_folder(folder: Path) -> tuple[Table, np.ndarray]:
    import pandas as pd

    for name in ("manifest.parquet", "images.npy"):
        if not (folder / name).is_file():
            raise Refused(f"no {name} in {show(folder)}: name the folder of the benchmark's model input by --data")
    manifest = pd.read_parquet(folder / "manifest.parquet")
    return manifest, np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
