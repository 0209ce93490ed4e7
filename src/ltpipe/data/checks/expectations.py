"""The rules of rules.py as great-expectations classes.

Only validate.py imports this module, and only while it validates, because great-expectations is slow to import.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.expectations.expectation import BatchExpectation

from ltpipe.data.checks import rules

EXAMPLES = 10


class _Rule(BatchExpectation):
    """An expectation about the manifest as a table. The result holds the number of violations and the first ones.

    A subclass names a function of rules.py, and in `parameters` the fields that it passes to this function.
    """

    metric_dependencies: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[Callable[..., list[str]]]
    parameters: ClassVar[tuple[str, ...]] = ()

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        frame, _, _ = execution_engine.get_compute_domain({}, MetricDomainTypes.TABLE)
        violations = type(self).rule(frame, **{name: getattr(self, name) for name in self.parameters})
        result = {
            "observed_value": f"{len(violations)} violations",
            "element_count": len(frame),  # this and the next two keys are needed by the HTML page of a failed check
            "unexpected_count": len(violations),
            "unexpected_percent": 100 * len(violations) / max(len(frame), 1),
            "details": {"examples": violations[:EXAMPLES]},
        }
        return {"success": not violations, "result": result}


class ExpectFilesToExist(_Rule):
    """Every file exists and is not empty."""

    folder: str
    rule = staticmethod(rules.files_exist)
    parameters = ("folder",)


class ExpectClassCountsToEqual(_Rule):
    """Each class has exactly the stated number of images in each split, or the split's summary is as stated."""

    counts: dict[str, list[int] | dict[str, int]]
    classes: int
    rule = staticmethod(rules.class_counts)
    parameters = ("counts", "classes")


class ExpectEveryClassToHaveAnImage(_Rule):
    """Each class has an image in at least one split."""

    classes: int
    rule = staticmethod(rules.every_class)
    parameters = ("classes",)


class ExpectAttributeCountsToEqual(_Rule):
    """Each attribute rank has exactly the stated number of images in each split."""

    counts: dict[str, list[int]]
    rule = staticmethod(rules.attribute_counts)
    parameters = ("counts",)


class ExpectEveryRankInEveryClass(_Rule):
    """Each class has an image of each attribute rank in each of `splits`."""

    splits: list[str]
    ranks: int
    rule = staticmethod(rules.every_rank)
    parameters = ("splits", "ranks")


class ExpectRolesToBeDisjointBySource(_Rule):
    """No source image is in two roles of train, val and test."""

    rule = staticmethod(rules.disjoint)


class ExpectGroupsToFollowRule(_Rule):
    """Each row has the group that the rule gives to its class, from the class sizes of `split` (or their sum)."""

    split: str | list[str]
    by: str
    many: int
    medium: int
    rule = staticmethod(rules.groups_of)
    parameters = ("split", "by", "many", "medium")


class ExpectOneRolePerSplit(_Rule):
    """All rows of a split have the role with which its name begins."""

    rule = staticmethod(rules.one_role)


class ExpectOneRowPerImage(_Rule):
    """Image, file and row are one to one, and rows have no gap."""

    rule = staticmethod(rules.one_row)


class ExpectOneNamePerLabel(_Rule):
    """Label and class name are one to one."""

    rule = staticmethod(rules.one_name)


class ExpectCropsToBeSharp(_Rule):
    """No training split has more enlarged random boxes than stated, or than whole pictures give."""

    crops: dict[str, dict[str, float]]
    upsampled: float | Literal["whole"]
    rule = staticmethod(rules.sharp_crops)
    parameters = ("crops", "upsampled")
