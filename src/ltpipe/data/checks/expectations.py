"""The rules of rules.py as great-expectations classes.

Only validate.py imports this module, and only while it validates, because great-expectations is slow to import.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.render import LegacyRendererType, RenderedStringTemplateContent
from great_expectations.render.renderer.renderer import renderer

from ltpipe.data.checks import rules

EXAMPLES = 10


class _Rule(BatchExpectation):
    """An expectation about the manifest as a table. The result holds the number of violations and the first ones.

    A subclass names a function of rules.py, and in `parameters` the fields that it passes to this function. Its
    docstring is the sentence that the page shows; `stated` adds the numbers.
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

    @classmethod
    def stated(cls, kwargs: dict[str, Any]) -> str:
        """Return what was stated for this rule, in words; kwargs: the fields."""
        return ""

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)  # type: ignore[untyped-decorator]
    def _prescriptive_renderer(cls, configuration: Any = None, **_: Any) -> list[RenderedStringTemplateContent]:  # type: ignore[override]
        """Return the sentence of the page: without it great-expectations shows the arguments of the class."""
        sentence = " ".join(filter(None, [str(cls.__doc__), cls.stated(configuration.kwargs)]))
        template: dict[str, Any] = {"template": sentence.replace("$", "$$"), "params": {}}
        return [RenderedStringTemplateContent(content_block_type="string_template", string_template=template)]


def _listed(counts: dict[str, Any]) -> str:
    """Return the numbers of each split, in words."""
    return "; ".join(f"{split}: {_words(numbers)}" for split, numbers in counts.items()) + "."


def _words(numbers: list[int] | dict[str, Any]) -> str:
    if isinstance(numbers, dict):
        return ", ".join(f"{name} {value}" for name, value in numbers.items())
    first = ", ".join(map(str, numbers[:EXAMPLES])) + (", ..." if len(numbers) > EXAMPLES else "")
    return f"{sum(numbers)} images ({first})"


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

    @classmethod
    def stated(cls, kwargs: dict[str, Any]) -> str:
        """Return the sizes of the classes."""
        return _listed(kwargs["counts"])


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

    @classmethod
    def stated(cls, kwargs: dict[str, Any]) -> str:
        """Return the sizes of the attribute ranks."""
        return _listed(kwargs["counts"])


class ExpectEveryRankInEveryClass(_Rule):
    """Each class has an image of each attribute rank in each of the splits that are named."""

    splits: list[str]
    ranks: int
    rule = staticmethod(rules.every_rank)
    parameters = ("splits", "ranks")

    @classmethod
    def stated(cls, kwargs: dict[str, Any]) -> str:
        """Return the splits and the ranks."""
        return f"Splits: {', '.join(kwargs['splits']) or 'none'}; ranks: {kwargs['ranks']}."


class ExpectRolesToBeDisjointBySource(_Rule):
    """No source image is in two roles of train, val and test."""

    rule = staticmethod(rules.disjoint)


class ExpectGroupsToFollowRule(_Rule):
    """Each row has the group that the rule gives to its class, by the images of the class."""

    split: str | list[str]
    by: str
    many: int
    medium: int
    rule = staticmethod(rules.groups_of)
    parameters = ("split", "by", "many", "medium")

    @classmethod
    def stated(cls, kwargs: dict[str, Any]) -> str:
        """Return the rule."""
        split = kwargs["split"] if isinstance(kwargs["split"], str) else " + ".join(kwargs["split"])
        return f"Images of {split}; by {kwargs['by']}, many: {kwargs['many']}, medium: {kwargs['medium']}."


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

    @classmethod
    def stated(cls, kwargs: dict[str, Any]) -> str:
        """Return the largest share."""
        return f"Largest share: {kwargs['upsampled']}. Measured: {_listed(kwargs['crops'])}"
