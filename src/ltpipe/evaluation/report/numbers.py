"""How the report writes numbers and verdicts, in the text and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

NONE = "-"  # a number that does not exist


def number(value: float | None, sign: bool = False) -> str:
    """Return a number with two digits after the point. sign: show a plus too."""
    if value is None:
        return NONE
    rounded = round(value, 2) + 0.0  # no -0.00
    return f"{rounded:+.2f}" if sign else f"{rounded:.2f}"


def number_of(count: int | None) -> str:
    """Return a count."""
    return NONE if count is None else f"{count:,}"


def mean_and_std(value: Mapping[str, Any] | None) -> str:
    """Return mean ± standard deviation over seeds."""
    return NONE if value is None else f"{number(value['mean'])} ± {number(value['std'])}"


def reported_value(row: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the number that a paper reports for a row of the gate: a run reports one metric only."""
    paper = next(summary["reported"] for summary in summaries if summary["run"] == row["run"])
    return paper["value"] if paper["metric"] == row["metric"] else None


def card_name(run: str) -> str:
    """Return the file name of a run's model card, which lies beside the report."""
    return f"model_card_{run}.md"


def outcome(verdict: Mapping[str, Any]) -> str:
    """Return what the title says of the gate."""
    of_baseline = {
        "nothing": "judges nothing (gate.against: nothing)",
        "none": "has no accepted baseline yet",
        "accepted": "passes" if verdict["passes"] else "FAILS",
    }
    return of_baseline[verdict["baseline"]]
