"""The rules of rules.py as great-expectations classes; imported by expectations.py only, and only when it validates."""

from collections.abc import Callable
from typing import Any, ClassVar

from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.expectations.expectation import BatchExpectation

from ltpipe.data.checks import rules

EXAMPLES = 10


class _Rule(BatchExpectation):
    """A rule of the whole table; the result carries the number of violations and the first few."""

    metric_dependencies: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[Callable[..., list[str]]]
    parameters: ClassVar[tuple[str, ...]] = ()

    def _validate(self, metrics: Any, runtime_configuration: Any = None, execution_engine: Any = None) -> Any:
        frame, _, _ = execution_engine.get_compute_domain({}, MetricDomainTypes.TABLE)
        found = type(self).rule(frame, **{name: getattr(self, name) for name in self.parameters})
        result = {
            "observed_value": f"{len(found)} violations",
            "element_count": len(frame),  # with the next two, what the HTML page wants of a failed check
            "unexpected_count": len(found),
            "unexpected_percent": 100 * len(found) / max(len(frame), 1),
            "details": {"examples": found[:EXAMPLES]},
        }
        return {"success": not found, "result": result}


class ExpectFilesToExist(_Rule):
    """Every file is there and is not empty (a number is a row of the source's own array)."""

    folder: str
    rule = staticmethod(rules.files_exist)
    parameters = ("folder",)


class ExpectClassCountsToEqual(_Rule):
    """Images of each class in each split are exactly the stated integers, or sum up as stated."""

    counts: dict[str, list[int] | dict[str, int]]
    classes: int
    rule = staticmethod(rules.class_counts)
    parameters = ("counts", "classes")


class ExpectEveryClassToHaveAnImage(_Rule):
    """Every class has an image in some split."""

    classes: int
    rule = staticmethod(rules.every_class)
    parameters = ("classes",)


class ExpectAttributeCountsToEqual(_Rule):
    """Images of each attribute rank in each split are exactly the stated integers."""

    counts: dict[str, list[int]]
    rule = staticmethod(rules.attribute_counts)
    parameters = ("counts",)


class ExpectEveryRankInEveryClass(_Rule):
    """Every class has at least one image of each attribute rank in each of the splits."""

    splits: list[str]
    ranks: int
    rule = staticmethod(rules.every_rank)
    parameters = ("splits", "ranks")


class ExpectRolesToBeDisjointBySource(_Rule):
    """No source image is in two of train, val and test."""

    rule = staticmethod(rules.disjoint)


class ExpectGroupsToFollowRule(_Rule):
    """Many, medium and few are what the rule says, given the class sizes of one split."""

    split: str | list[str]
    by: str
    many: int
    medium: int
    rule = staticmethod(rules.groups_of)
    parameters = ("split", "by", "many", "medium")


class ExpectOneRolePerSplit(_Rule):
    """A split is of train, val or test as a whole."""

    rule = staticmethod(rules.one_role)


class ExpectOneRowPerImage(_Rule):
    """Image, file and row are one to one."""

    rule = staticmethod(rules.one_row)


class ExpectOneNamePerLabel(_Rule):
    """Labels and class names are one to one."""

    rule = staticmethod(rules.one_name)
