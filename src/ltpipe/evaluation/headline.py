"""Headline: the metric by which the runs of a protocol are ranked.

Accuracy, as in the papers, if all classes of the test split have equally many images. Otherwise recall, the mean over
classes (balanced accuracy): there, accuracy ranks first the model that ignores the rare classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Headline(NamedTuple):
    """The headline metric of a protocol, and the images of its smallest and largest class."""

    protocol: str
    metric: str
    smallest: int
    largest: int

    @property
    def path(self) -> str:
        """The metric path over all classes."""
        return f"{self.protocol}.{self.metric}.all"

    @property
    def reason(self) -> str:
        """Why it is this metric, in words."""
        if self.metric == "accuracy":
            return f"every class of the test split has {self.smallest} images, so accuracy is also the mean recall"
        return (
            f"classes of the test split have {self.smallest} to {self.largest} images, so recall (the mean over "
            "classes, balanced accuracy) ranks, and not accuracy"
        )


def choose_headline(protocol: str, images: Sequence[int]) -> Headline:
    """Return the headline of a protocol. images: test images of each class that has some."""
    smallest, largest = int(min(images)), int(max(images))
    return Headline(protocol, "accuracy" if smallest == largest else "recall", smallest, largest)


def headlines(details: Sequence[Mapping[str, Any]]) -> list[Headline]:
    """Return the headline of each protocol, in the order in which they first occur. details: of the cells."""
    found: dict[str, Headline] = {}
    for cell in details:
        for protocol, shown in cell["protocols"].items():
            found.setdefault(protocol, choose_headline(protocol, [row["n"] for row in shown["classes"]]))
    return list(found.values())


def rank(summaries: Sequence[Mapping[str, Any]], headline: Headline) -> list[Mapping[str, Any]]:
    """Return the summaries of the runs that the protocol measures, the best one first."""
    measured = [summary for summary in summaries if headline.path in summary["metrics"]]
    return sorted(measured, key=lambda summary: -summary["metrics"][headline.path]["mean"])
