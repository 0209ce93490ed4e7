"""Accepted baselines: the numbers that somebody accepted, and for each test image whether it was classified correctly.

conf/accepted/<benchmark>.json is read as a whole: a file that contradicts itself, its manifest or its name is refused.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec, parse
from ltpipe.evaluation.measure import Evaluation, flatten
from ltpipe.evaluation.metrics import ALL
from ltpipe.storage.identity import digest
from ltpipe.storage.manifest import GROUPS, role_of
from ltpipe.storage.table import Table

# Numbers are stored with six digits after the point.
ROUNDING = 2e-6


class AcceptedSeed(Spec):
    """One cell: its metrics by path, and the bits of its test images by split, in the order of the images' ids."""

    seed: int
    metrics: dict[str, float]
    correct: dict[str, str]


class AcceptedRun(Spec):
    """One run: its seeds by name; n, mean and std are for the reader of the file."""

    code: str
    recipe: str | None = None
    n: int
    mean: dict[str, float]
    std: dict[str, float | None]
    seeds: dict[str, AcceptedSeed] = Field(min_length=1)


class Accepted(Spec):
    """A whole accepted baseline, with the gate's settings of that time, and why runs were retired."""

    benchmark: str
    data: str
    reason: str
    gate: dict[str, Any]
    retired: dict[str, str] = Field(default_factory=dict)
    runs: dict[str, AcceptedRun]
    digest: str


def build_baseline(
    benchmark: str,
    cells: Sequence[tuple[Mapping[str, Any], Table]],
    reason: str,
    gate: Mapping[str, Any],
    retired: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the content of conf/accepted/<benchmark>.json.

    cells: (metrics, predictions) of every run and seed. gate: the gate's settings. retired: run -> reason. Raises
    Refused if metrics and predictions are not of one cell, or if the cells are of different data.
    """
    data = {metrics["data"] for metrics, _ in cells}
    if len(data) != 1:
        raise Refused(f"cells of different data cannot be one baseline: {sorted(data)}")
    runs: dict[str, Any] = {}
    for metrics, predictions in cells:
        _require_same_cell(metrics, predictions)
        _, run, seed = metrics["cell"].rsplit(".", 2)
        entry = runs.setdefault(run, {"code": metrics["code"], "recipe": metrics["recipe"], "seeds": {}})
        entry["seeds"][seed] = {
            "seed": metrics["seed"],
            "metrics": {k: round(v, 6) for k, v in flatten(metrics["protocols"]).items()},
            "correct": {
                split: _correct_bits(rows)
                for split, rows in predictions.groupby("split", observed=True)
                if role_of(str(split)) == "test"
            },
        }
    for entry in runs.values():
        entry |= _spread([seed["metrics"] for seed in entry["seeds"].values()])
    content = {"benchmark": benchmark, "data": data.pop(), "reason": reason, "gate": dict(gate)}
    return seal(content | {"retired": dict(retired or {}), "runs": runs})


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with its digest."""
    unsealed = {key: value for key, value in content.items() if key != "digest"}
    return unsealed | {"digest": digest(unsealed)}


def _require_same_cell(metrics: Mapping[str, Any], predictions: Table) -> None:
    facts = predictions.attrs["facts"]
    if differing := [key for key in ("cell", "seed", "data", "code", "recipe") if facts.get(key) != metrics[key]]:
        said = ", ".join(f"{key} {facts.get(key)} and {metrics[key]}" for key in differing)
        raise Refused(f"{metrics['cell']}: predictions and metrics are of different cells: {said}")


def _spread(values: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return n, mean and std of every metric over seeds."""
    return {
        "n": len(values),
        "mean": {k: round(float(np.mean([v[k] for v in values])), 6) for k in values[0]},
        "std": {k: _sample_deviation([v[k] for v in values]) for k in values[0]},
    }


def _sample_deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation with n - 1 in the denominator; None for a single value."""
    return round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else None


def pack_bits(correct: np.ndarray) -> str:
    """Encode bools, N, as base64 text, eight to a byte."""
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """Return the `count` bools that `pack_bits` encoded. Raises ValueError if the text is not of exactly so many."""
    try:
        content = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None
    bits = np.unpackbits(content).astype(bool)
    if len(content) != -(-count // 8) or bits[count:].any():
        raise ValueError(f"{len(content)} bytes with {int(bits.sum())} correct images are not those of {count} images")
    return bits[:count]


def _correct_bits(rows: Table) -> str:
    # The order of the ids is the same on every machine; `check_bits` sorts the manifest in the same way.
    ordered = rows.sort_values("id")
    return pack_bits((ordered["label"] == ordered["predicted"]).to_numpy())


def read_accepted(content: Mapping[str, Any], benchmark: str) -> Accepted:
    """Return the accepted baseline. Raises Refused if the file contradicts itself, or is of another benchmark."""
    where = f"conf/accepted/{benchmark}.json"
    accepted = parse(Accepted, content, where)
    wrong = [
        f"it is of {accepted.benchmark}" if accepted.benchmark != benchmark else "",
        "its digest is not that of its content: it was edited" if seal(content)["digest"] != accepted.digest else "",
        *(problem for run, entry in accepted.runs.items() for problem in _contradictions(run, entry)),
        *(f"run {run} is retired and accepted" for run in accepted.retired if run in accepted.runs),
    ]
    _refuse(where, wrong)
    return accepted


def _contradictions(run: str, entry: AcceptedRun) -> list[str]:
    """Return what of n, mean, std and seed numbers does not follow from the run's seeds."""
    values = [seed.metrics for seed in entry.seeds.values()]
    if any(v.keys() != values[0].keys() for v in values):
        return [f"seeds of {run} have different metrics"]
    problems = []
    if len({seed.seed for seed in entry.seeds.values()}) < len(values):
        problems.append(f"two seeds of {run} have one number")
    spread = _spread(values)
    if entry.n != spread["n"]:
        problems.append(f"{run} has {len(values)} seeds, not n {entry.n}")
    for kind, stated in (("mean", entry.mean), ("std", entry.std)):
        if stated.keys() != spread[kind].keys():
            problems.append(f"{kind} of {run} has other metrics than its seeds")
        elif differing := [k for k, v in spread[kind].items() if not _same(v, stated[k])]:
            problems.append(f"{kind} of {run} does not follow from its seeds: {', '.join(differing[:3])}")
    return problems


def _same(first: float | None, second: float | None) -> bool:
    return first == second or (None not in (first, second) and abs(first - second) <= ROUNDING)  # type: ignore[operator]


def check_bits(accepted: Accepted, manifest: Table, evaluation: Evaluation) -> None:
    """Raise Refused unless every cell's bits are of the manifest's test images, and give its accuracies.

    manifest: that of the accepted data.
    """
    rows_of = {str(split): rows.sort_values("id") for split, rows in manifest.groupby("split", observed=True)}
    wrong = [
        f"{run}.{name}: {problem}"
        for run, entry in accepted.runs.items()
        for name, seed in entry.seeds.items()
        for problem in _check_seed(seed, rows_of, evaluation)
    ]
    _refuse(f"conf/accepted/{accepted.benchmark}.json", wrong)


def _check_seed(seed: AcceptedSeed, rows_of: Mapping[str, Table], evaluation: Evaluation) -> list[str]:
    """Return what the bits of one cell contradict."""
    problems = []
    measured = {metric.split(".")[0] for metric in seed.metrics}
    for protocol in (p for p in evaluation.protocols if p in measured):
        split = evaluation.protocols[protocol].test
        if split not in seed.correct or split not in rows_of:
            problems.append(f"no bits of {split}")
            continue
        try:
            bits = unpack_bits(seed.correct[split], len(rows_of[split]))
        except ValueError as error:
            problems.append(f"bits of {split}: {error}")
            continue
        for part, value in _accuracies(bits, rows_of[split]["group"].to_numpy()).items():
            if not _same(seed.metrics.get(f"{protocol}.accuracy.{part}"), value):
                problems.append(f"the bits of {split} do not give {protocol}.accuracy.{part}")
    return problems


def _accuracies(bits: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Return the accuracy of all images and of each group that has some, in percent."""
    parts = {ALL: np.ones(len(bits), bool)} | {group: groups == group for group in GROUPS}
    return {part: round(100 * float(bits[member].mean()), 6) for part, member in parts.items() if member.any()}


def _refuse(where: str, problems: Sequence[str]) -> None:
    if found := [problem for problem in problems if problem]:
        lines = "\n".join(f"  {problem}" for problem in found[:10])
        remedy = "Take the committed one, or delete the file and accept again"
        raise Refused(f"{where} is not a baseline that ltpipe accept wrote:\n{lines}\n{remedy}")
