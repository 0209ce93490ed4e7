"""Fixtures of every test: the embedded digits benchmark, and cells whose predictions are made up instead of trained."""

import os

# tiny networks: threads that wait for one another cost more than they do, above all beside other work
os.environ.setdefault("OMP_NUM_THREADS", "1")
# commands in messages are those of an active environment, also where the tests were started by `uv run`
os.environ.pop("UV", None)


import json
import os
import shutil
import zlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import settings

from ltpipe.benchmark import load
from ltpipe.data.checks.validate import validate
from ltpipe.data.fetch import fetch
from ltpipe.data.identity import identify
from ltpipe.data.pack import pack
from ltpipe.data.split import draw
from ltpipe.evaluation.baseline import build_baseline
from ltpipe.evaluation.measure import measure
from ltpipe.recipe.cell import exported_by, identity, predicted_by, recipe
from ltpipe.recipe.run import Run
from ltpipe.state import state
from ltpipe.storage.identity import digest_bytes
from ltpipe.storage.manifest import KEPT, class_names, data_version

# the same cases on every machine and in every run
settings.register_profile("ltpipe", derandomize=True, deadline=None, database=None)
settings.load_profile("ltpipe")

ROOT = Path(__file__).resolve().parents[1]


class Cell(NamedTuple):
    """What the stages train and evaluate leave of one run and seed."""

    metrics: dict[str, Any]
    details: dict[str, Any]
    classes: pd.DataFrame
    predictions: pd.DataFrame
    log: pd.DataFrame


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def spec():
    """The embedded benchmark as its YAML file states it."""
    return load(ROOT / "conf/base")["digits_glt"]


@pytest.fixture
def content():
    """The embedded benchmark's YAML as plain data that a test may spoil."""
    return yaml.safe_load((ROOT / "conf/base/parameters/digits_glt.yml").read_text())


@pytest.fixture(scope="session")
def expect(spec):
    return spec.expect


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """The folder of raw files; the digits need none."""
    return tmp_path_factory.mktemp("raw")


@pytest.fixture(scope="session")
def index(spec, raw):
    """Index of the default source."""
    return fetch(spec.source, raw)[0]


@pytest.fixture(scope="session")
def manifest(index, spec, raw):
    """The default manifest; a test that changes it takes a copy."""
    return draw(index, spec.split)


@pytest.fixture(scope="session")
def images(manifest, spec, raw):
    """The default manifest's images."""
    return pack(manifest, spec.source, raw)


@pytest.fixture(scope="session")
def validation(manifest, raw, expect):
    """Report and page of the default manifest."""
    return validate(manifest, raw, expect)


def row_of(spec, run):
    """The parameters of a run: those of the embedded benchmark, or plain ce; the run `balanced` trains on train_cbl."""
    known = spec.runs[run].train if run in spec.runs else None
    return known or Run(method="ce", split="train_cbl" if run == "balanced" else "train_glt")


@pytest.fixture(scope="session")
def cell(manifest, images, spec):
    """cell(run, seed, wrong): a cell with a share `wrong` of wrong predictions, drawn from the run and seed.

    Its identity is that which the stages would give it; only its checkpoint does not exist. A cell is made once for all
    tests: one that changes it takes a copy.
    """
    blocks, data = {"schedule": spec.schedule, "model": spec.model}, data_version(manifest, images)

    @cache
    def make(run="ce", seed=0, wrong=0.1):
        name, row = f"digits_glt.{run}.s{seed}", row_of(spec, run)
        random = np.random.RandomState(zlib.crc32(f"{run}.{seed}".encode()))
        table = manifest.loc[manifest["role"] != "train", list(KEPT)].reset_index(drop=True)
        miss = random.rand(len(table)) < wrong
        table["predicted"] = (table["label"] + miss * random.randint(1, 10, len(table))) % 10
        table["confidence"] = random.uniform(0.3, 1.0, len(table))
        made = exported_by(spec.parity) | predicted_by()
        facts = identity(name, row, seed=seed, **blocks) | made | {"data": data}
        start = f"digits_glt.{row.start_from}.s{seed}" if row.start_from else None
        table.attrs["facts"] = facts | {
            "provider": "CPUExecutionProvider",
            "classes": class_names(manifest),
            "classes_counts": spec.expect.class_counts[row.split],
            "image_size": spec.source.size,
            "parameters": recipe(row, **blocks),
            "checkpoint": digest_bytes(name.encode()),
            "started_from": digest_bytes(start.encode()) if start else None,
        }
        log = pd.DataFrame({"epoch": [0, 1], "loss": [2.0 + seed, 1.0], "val_accuracy": [50.0, 80.0]})
        log = log.assign(**{key: facts[key] for key in ("cell", "recipe", "code", "data")})
        numbers = measure(table, manifest, spec.evaluate, spec.parity, row, seed=seed, cell=name, **blocks)
        return Cell(*numbers, table, log)

    return make


@pytest.fixture(scope="session")
def data_identity(manifest, images, spec):
    """What the stage split says of the default data."""
    return identify(manifest, images, spec.source, spec.split, spec.expect)


@pytest.fixture(scope="session")
def state_of(spec, data_identity):
    """state_of(summaries...): the state of a benchmark with exactly these runs and seeds."""

    def make(*summaries, accepted=None):
        runs = {
            s["run"]: {
                "train": row_of(spec, s["run"]),
                "reported": {"why": "a test"},
                "seeds": [f"s{seed}" for seed in s["seeds"]],
            }
            for s in summaries
        }
        seeds = {f"s{seed}": seed for s in summaries for seed in s["seeds"]}
        gate = spec.gate.model_copy(update={"against": "nothing"})  # so that one seed is enough
        parameters = dict(spec) | {"runs": runs, "seeds": seeds, "gate": gate, "claims": [], "reported": {}}
        return state(parameters, data_identity, accepted, benchmark="digits_glt")

    return make


@pytest.fixture(scope="session")
def accept_cells(spec):
    """accept_cells(cells, ...): the content of an accepted file with these cells."""

    def make(cells, reason="it was right", gate=spec.gate, retired=None):
        pairs = [(c.metrics, c.predictions) for c in cells]
        return build_baseline("digits_glt", pairs, reason, gate.model_dump(mode="json"), retired)

    return make


@pytest.fixture(scope="session")
def accepted_file(cell, accept_cells):
    """The accepted baseline of run ce with seeds 0, 1, 2, as JSON text."""
    return json.dumps(accept_cells([cell("ce", seed) for seed in range(3)]))


@pytest.fixture
def accepted(accepted_file):
    """The accepted baseline; a test may spoil it."""
    return json.loads(accepted_file)


@pytest.fixture
def copied(tmp_path):
    """A copy of the project with the embedded benchmark alone, without data and accepted baselines: for commands."""
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines", ignore=shutil.ignore_patterns("__pycache__", "dvc"))
    files = ["pyproject.toml", "conf/logging.yml", "conf/base/parameters/digits_glt.yml"]
    for file in [*files, *(path.relative_to(ROOT).as_posix() for path in (ROOT / "conf/base").glob("*.yml"))]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "src").mkdir()
    return tmp_path


@pytest.fixture(scope="session")
def environment():
    """Environment of a subprocess: nobody is called."""
    return os.environ | {"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1"}
