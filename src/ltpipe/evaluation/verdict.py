"""The verdict on one comparison, and the line that says it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.evaluation.margin import spread_margin
from ltpipe.evaluation.measure import Evaluation
from ltpipe.evaluation.metrics import higher_is_better, parse_path
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table

# The verdicts that do not fail the gate; a new verdict fails until it is added here.
PASSING = ("pass", "unreported", "not judged")
MOST_SEEDS = 200


def sign_of(metric: str) -> int:
    """Return 1 if a larger value of a metric path is better, -1 if a smaller one is."""
    return 1 if higher_is_better(metric) else -1


def one_image(metric: str, manifest: Table, evaluation: Evaluation) -> float:
    """Return the share of one image, in percentage points: of the metric's group, or else of the whole test split."""
    place = parse_path(metric)
    rows = manifest[manifest["split"] == evaluation.protocols[place.protocol].test]
    member = rows["group"] == place.part if place.part in GROUPS else rows["group"].notna()
    return 100 / max(int(member.sum()), 1)


def guessing_value(metric: str, manifest: Table) -> float:
    """Return what guessing among classes of equal size gives, or 0 where it is not known; -inf if smaller is better."""
    if not higher_is_better(metric):
        return -np.inf
    return 100 / manifest["label"].nunique() if parse_path(metric).metric in ("accuracy", "recall") else 0.0


class Noise(NamedTuple):
    """What a margin comes from: the accepted deviation, and the risk of a false alarm."""

    deviation: float
    risk: float


def decide(row: Mapping[str, Any], fall: float, ceiling: float, noise: Noise, guessing: float) -> dict[str, Any]:
    """Return the verdict on one comparison, with a reason if it is inconclusive."""
    if fall > row["margin"]:
        return {"verdict": "regressed"}
    if row["margin"] > ceiling:
        return {
            "verdict": "inconclusive",
            "reason": f"the margin is wider than {ceiling:g} points (gate.ceiling); "
            + _describe_seeds(seeds_needed(noise, ceiling, row)),
        }
    if row["accepted"] - row["margin"] <= guessing:
        room = row["accepted"] - guessing
        return {
            "verdict": "inconclusive",
            "reason": f"the margin is so wide that a guessing model would pass ({guessing:.2f}); "
            + _describe_seeds(seeds_needed(noise, room, row) if room > 0 else None),
        }
    return {"verdict": "pass"}


def seeds_needed(noise: Noise, ceiling: float, row: Mapping[str, Any]) -> int | None:
    """Return with how many seeds, accepted and measured, the margin would not exceed `ceiling`; None: too many.

    The seeds are taken to vary as the accepted ones do. row: has n and accepted_n, the seeds that are not enough.
    """
    counts = range(min(row["n"], row["accepted_n"]) + 1, MOST_SEEDS)
    return next((k for k in counts if spread_margin(noise.deviation, k, k, noise.risk) <= ceiling), None)


def _describe_seeds(count: int | None) -> str:
    if count is None:
        return f"{MOST_SEEDS} seeds would not be enough: the metric cannot gate here"
    return f"about {count} seeds of the baseline and as many of the candidate would do"


def describe_failed(rows: Sequence[Mapping[str, Any]], together: Mapping[str, Any] | None) -> list[str]:
    """Return a line for each comparison that does not pass, and one for all together if that does not.

    rows, together: see `ltpipe.evaluation.judge`.
    """
    lines = [_describe_row(row) for row in rows if row["verdict"] not in PASSING]
    if together is not None and together["verdict"] not in PASSING:
        lines.append(
            f"all comparisons together: on average {-together['delta']:.2f} accepted standard deviations below, "
            f"margin {together['margin']:.2f}"
        )
    return lines


def describe_worse(compared: Mapping[str, Any]) -> list[str]:
    """Return a line for each comparison of `compare_with_accepted` that is a regression."""
    return describe_failed([row for row in compared["rows"] if row["verdict"] == "regressed"], compared["together"])


def _describe_row(row: Mapping[str, Any]) -> str:
    """Return a failed comparison with the baseline as one line."""
    if row["verdict"] != "regressed":
        return f"{row['run']} {row['metric']}: {row['verdict']}, {row['reason']}"
    where = "below" if row["delta"] < 0 else "above"
    return (
        f"{row['run']} {row['metric']}: {row['mean']:.2f} (n {row['n']}) is {abs(row['delta']):.2f} {where} the "
        f"accepted {row['accepted']:.2f}, margin {row['margin']:.2f}"
    )


def require_visible(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise Refused if a comparison would be inconclusive: such a baseline lets everything pass."""
    if blind := [_describe_row(row) for row in rows if row["verdict"] in ("inconclusive", "incomparable")]:
        lines = "\n".join(f"  {line}" for line in blind)
        raise Refused(
            f"the gate would not see with this baseline:\n{lines}\nMore seeds: the key `seeds` of the benchmark's "
            "file; for your own images, ltpipe init PATH --name NAME --seeds N --update"
        )
