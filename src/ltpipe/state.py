"""Node `state`: of what state results must be to be judged: the parameters, code, data and baseline that are there now.

The stage report compares every cell with it, the gate compares the verdict with it, and `ltpipe accept` both.
"""

from collections.abc import Mapping
from typing import Any

from ltpipe.benchmark import Benchmark
from ltpipe.data.identity import drawn_by
from ltpipe.evaluation.measure import measured_by
from ltpipe.evaluation.pretraining import warn_of_seen
from ltpipe.recipe.cell import identity
from ltpipe.storage.identity import digest, require
from ltpipe.storage.provenance import code_version

# the code that makes the verdict and its report
JUDGING = frozenset({"ltpipe.evaluation.judge", "ltpipe.evaluation.report"})


def state(
    parameters: Mapping[str, Any], data_identity: Mapping[str, Any], accepted: Any, *, benchmark: str
) -> dict[str, Any]:
    """Return what the results of a benchmark must be of, and a digest of it.

    parameters: the whole benchmark. data_identity: of the manifest that is there; Refused if it is of other parameters
    or code. accepted: content of the accepted baseline, or None.
    """
    spec = Benchmark.model_validate(parameters)
    asked = drawn_by(spec.source, spec.split, spec.expect, spec.cluster)
    remedy = f"Draw it again: kedro run --pipeline={benchmark} --tags=fetch,cluster,split, or dvc repro"
    require(f"the manifest of {benchmark}", data_identity, asked, remedy)
    common = {"data": data_identity["data"], "measured": measured_by(spec.evaluate, spec.parity)}
    cells = {}
    for run, row in spec.runs.items():
        for seed in spec.seeds_of(run):
            cell = f"{benchmark}.{run}.{seed}"
            cells[cell] = identity(cell, row.train, spec.schedule, spec.model, spec.seeds[seed]) | common
    starts = {
        f"{benchmark}.{run}.{seed}": f"{benchmark}.{row.train.start_from}.{seed}"
        for run, row in spec.runs.items()
        for seed in spec.seeds_of(run)
        if row.train.start_from
    }
    seen = {run: spec.model.with_changes(row.train.model).seen() for run, row in spec.runs.items()}
    whole = {"benchmark": benchmark, "cells": cells, "starts": starts, "seeds": dict(spec.seeds)}
    whole["warnings"] = warn_of_seen(spec.source.name, seen)
    facts = {
        "parameters": digest(spec.model_dump(mode="json")),
        "accepted": digest(accepted),
        "judged_by": code_version(JUDGING),
    }
    return whole | facts | {"digest": digest(whole | facts)}
