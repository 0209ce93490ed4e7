"""What the numbers were made from: the card of the data, how much was trained, and the environment."""

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from ltpipe.evaluation.report.cells import Cells
from ltpipe.evaluation.report.numbers import NONE, number_of
from ltpipe.evaluation.report.tables import Grid
from ltpipe.storage.table import Table

LIBRARIES = ("ltpipe", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "onnx")


def split_grid(manifest: Table) -> Grid:
    """Return a row for each split: its images, classes, sizes and attributes."""
    rows = [_split_row(str(split), rows) for split, rows in manifest.groupby("split", sort=False, observed=True)]
    head = ["split", "role", "images", "classes", "largest class", "smallest class", "imbalance"]
    return Grid([*head, "classes many / medium / few", "images by attribute rank"], rows)


def _split_row(split: str, rows: Table) -> list[str]:
    sizes = rows["label"].value_counts()
    groups = rows.drop_duplicates("label")["group"].value_counts()
    ranks = rows.loc[rows["attribute"] >= 0, "attribute"].value_counts().sort_index()
    return [
        split,
        str(rows["role"].iloc[0]),
        number_of(len(rows)),
        number_of(len(sizes)),
        number_of(sizes.max()),
        number_of(sizes.min()),
        f"{sizes.max() / sizes.min():.1f} : 1",
        " / ".join(number_of(groups.get(group, 0)) for group in ("many", "medium", "few")),
        " / ".join(map(number_of, ranks)) if 0 < len(ranks) <= 12 else f"{len(ranks)} ranks" if len(ranks) else NONE,
    ]


def trained_grid(runs: Mapping[str, Cells]) -> Grid:
    """Return how much each run trained on, and by what it was measured."""
    rows = []
    for run, cells in runs.items():
        facts, epochs = cells.predictions[0].attrs["facts"], max(int(log["epoch"].max()) for log in cells.logs)
        images = sum(facts["classes_counts"])
        trained = facts["started_from"] is not None and epochs == 0
        said = "none of its own: it starts from another run" if trained else number_of(epochs)
        rows.append(
            [run, str(len(cells.logs)), number_of(images), said, facts["provider"].removesuffix("ExecutionProvider")]
        )
    return Grid(["run", "seeds", "training images", "epochs", "measured on"], rows)


def environment_grid(runs: Mapping[str, Cells]) -> Grid:
    """Return the versions that the models state, and those that wrote this report."""
    stated: dict[str, set[str]] = {}
    for cells in runs.values():
        for table in cells.predictions:
            for name, version in table.attrs["facts"].get("versions", {}).items():
                stated.setdefault(name, set()).add(str(version))
    trained = [
        [name, ", ".join(sorted(versions)), "the models were made with it"] for name, versions in sorted(stated.items())
    ]
    here = {"python": platform.python_version()} | {name: metadata.version(name) for name in LIBRARIES}
    return Grid(["library", "version", "what"], [*trained, *([n, v, "wrote this report"] for n, v in here.items())])


def commands(benchmark: str, cell: str) -> list[tuple[str, str]]:
    """Return what to type to make all this again, and what each command does."""
    return [
        (f"kedro run --pipeline={benchmark}", "the whole benchmark, from the data to the gate"),
        (
            f"kedro run --pipeline={benchmark} --namespaces={cell}",
            "one run and seed alone, on the split that is there",
        ),
        (
            f"kedro run --pipeline={benchmark} --tags=evaluate,report,gate",
            "measure and judge again what is trained",
        ),
        ("dvc repro", "the whole benchmark with a ledger, if dvc.yaml is of this benchmark (ltpipe generate)"),
    ]


def data_facts(state: Mapping[str, Any], validation: Mapping[str, Any], data: str) -> list[tuple[str, str]]:
    """Return the identities of what was judged."""
    checks = validation["expectations"]
    return [
        ("state", state["digest"]),
        ("parameters", state["parameters"]),
        ("data", data),
        ("accepted baseline", state["accepted"]),
        ("expectations", f"{sum(e['success'] for e in checks)} of {len(checks)} hold"),
        ("manifest", f"{validation['rows']:,} rows"),
    ]
