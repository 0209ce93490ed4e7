"""Validation of a manifest by great-expectations: the only module that touches it, and only inside `validate`.

An ephemeral context and a report of our own: a stored context mints identifiers and stamps times, and a report that
changes from run to run would retrain every model that depends on it.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from ltpipe.config.spec import Spec
from ltpipe.data.sampling.class_sizes import Sizes
from ltpipe.storage.manifest import COLUMNS, ROLES, Groups
from ltpipe.storage.table import Table

EXAMPLES = 10
# columns of few different texts: as categories they are hashed and compared by number
FEW = ("class_name", "role", "split", "group")


class GroupRule(Groups):
    """A group rule and the split, or the splits together, whose class sizes it reads."""

    split: str | list[str]


class Summary(Spec):
    """Class sizes of a split whose list is not at hand: images, classes that have any, largest and smallest class.

    largest and smallest are over all classes, so that smallest: 1 says that every class has an image.
    """

    total: int | None = Field(None, ge=0)
    classes: int | None = Field(None, ge=0)
    largest: int | None = Field(None, ge=0)
    smallest: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _something(self) -> "Summary":
        if not self.stated():
            raise ValueError(f"state at least one of {', '.join(type(self).model_fields)}")
        return self

    def stated(self) -> dict[str, int]:
        """What it says, as JSON."""
        return self.model_dump(exclude_none=True)


def _kind(value: Any) -> str:
    return "summary" if isinstance(value, Mapping | Summary) else "sizes"


# images of each class: a list, the same run-length coded ("500x3 497"), or a summary
Counts = Annotated[Annotated[Sizes, Tag("sizes")] | Annotated[Summary, Tag("summary")], Discriminator(_kind)]


class Expect(Spec):
    """What the manifest must be, in integers: stated, not computed from the block that draws it."""

    classes: int = Field(gt=0)
    class_counts: dict[str, Counts]
    attribute_counts: dict[str, Sizes] = Field(default_factory=dict)
    every_rank: list[str] = Field(default_factory=list, description="splits in which every class has every rank")
    ranks: int | None = Field(None, gt=0, description="ranks that every_rank is about; default as in attribute_counts")
    groups: GroupRule

    @model_validator(mode="after")
    def _whole(self) -> "Expect":
        sizes = {split: len(counts) for split, counts in self.class_counts.items() if isinstance(counts, list)}
        if wrong := [f"{split} has {n}" for split, n in sizes.items() if n != self.classes]:
            raise ValueError(f"class_counts must state {self.classes} classes (classes): {', '.join(wrong)}")
        rule = self.groups.split
        named = {rule} if isinstance(rule, str) else set(rule)
        if unknown := sorted((named | {*self.every_rank, *self.attribute_counts}) - set(self.class_counts)):
            raise ValueError(f"splits that class_counts does not state: {', '.join(unknown)}")
        if self.every_rank and not (self.ranks or self.attribute_counts):
            raise ValueError("every_rank needs ranks, or attribute_counts")
        return self

    def plain_counts(self) -> dict[str, list[int] | dict[str, int]]:
        """class_counts as JSON."""
        return {s: c.stated() if isinstance(c, Summary) else c for s, c in self.class_counts.items()}


def suite(expect: Expect, images: int, raw: Path) -> list[Any]:
    """The expectations, as great-expectations objects. images: different images; raw: folder of the source's files."""
    import great_expectations.expectations as gxe

    from ltpipe.data.checks import expectations

    labels = list(range(expect.classes))
    built = [
        gxe.ExpectTableColumnsToMatchOrderedList(column_list=list(COLUMNS)),
        *(gxe.ExpectColumnValuesToNotBeNull(column=column) for column in COLUMNS),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        gxe.ExpectColumnValuesToBeBetween(column="row", min_value=0, max_value=images - 1),
        expectations.ExpectFilesToExist(folder=str(raw)),
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=labels),
        gxe.ExpectColumnValuesToBeInSet(column="role", value_set=list(ROLES)),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=sorted(expect.class_counts)),
        expectations.ExpectClassCountsToEqual(counts=expect.plain_counts(), classes=expect.classes),
        expectations.ExpectEveryClassToHaveAnImage(classes=expect.classes),
        expectations.ExpectRolesToBeDisjointBySource(),
        expectations.ExpectGroupsToFollowRule(**expect.groups.model_dump()),
        expectations.ExpectOneNamePerLabel(),
        expectations.ExpectOneRolePerSplit(),
        expectations.ExpectOneRowPerImage(),
    ]
    ranks = expect.ranks or len(next(iter(expect.attribute_counts.values()), []))
    if expect.attribute_counts:
        built.append(expectations.ExpectAttributeCountsToEqual(counts=expect.attribute_counts))
    if ranks:
        built.append(expectations.ExpectEveryRankInEveryClass(splits=expect.every_rank, ranks=ranks))
    return built


def compact(candidate: Table) -> Table:
    """The same table with the columns of few texts as categories (great-expectations hashes the whole table)."""
    return candidate.astype({column: "category" for column in FEW if column in candidate})


def validate(candidate: Table, raw: Path, expect: Expect) -> tuple[dict[str, Any], str]:
    """Report (JSON-able, the same bytes for the same manifest) and the result as an HTML page (Data Docs)."""
    import great_expectations as gx

    # set to INFO by the package itself, for a temporary folder that concerns nobody
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    asset = context.data_sources.add_pandas("manifest").add_dataframe_asset("manifest")
    images = candidate["image"].nunique(dropna=False) if "image" in candidate else len(candidate)
    expectations = context.suites.add(gx.ExpectationSuite(name="manifest", expectations=suite(expect, images, raw)))
    definition = asset.add_batch_definition_whole_dataframe("manifest")
    # a definition, not batch.validate, which would hash the table once more
    validation = gx.ValidationDefinition(name="manifest", data=definition, suite=expectations)
    result = context.validation_definitions.add(validation).run(
        batch_parameters={"dataframe": compact(candidate)},
        result_format={  # type: ignore[arg-type]
            "result_format": "SUMMARY",
            "unexpected_index_column_names": ["id"],
            "partial_unexpected_count": EXAMPLES,
        },
    )
    lines = [_line(one) for one in result.results]
    return {"success": bool(result.success), "rows": len(candidate), "expectations": lines}, _page(result)


def _line(one: Any) -> dict[str, Any]:
    """One expectation's result without times, identifiers or tracebacks of passing checks."""
    # a folder of this machine has no place in a report that other machines compare
    kwargs = {k: v for k, v in one.expectation_config.kwargs.items() if k not in ("batch_id", "folder")}
    examples = _examples(one.result) or _raised(one.exception_info)
    return {
        "name": " ".join([one.expectation_config.type, *([kwargs["column"]] if "column" in kwargs else [])]),
        "success": bool(one.success),
        "violations": _violations(one, examples),
        "examples": [] if one.success else examples,
        "expected": kwargs,
    }


def _violations(one: Any, examples: list[str]) -> int:
    """Offending rows, or violated cells of a table rule; at least 1 where the expectation failed."""
    return 0 if one.success else max(int(one.result.get("unexpected_count") or 0), len(examples), 1)


def _examples(result: dict[str, Any]) -> list[str]:
    rows = result.get("partial_unexpected_index_list")
    if rows:
        return [", ".join(f"{key} {value}" for key, value in row.items()) for row in rows[:EXAMPLES]]
    details = result.get("details") or {}
    if "examples" in details:
        return [str(example) for example in details["examples"]]
    return [f"found {result['observed_value']}"[:300]] if "observed_value" in result else []


def _raised(info: dict[str, Any]) -> list[str]:
    """Messages of checks that could not run (a missing column): great-expectations reports them as failures."""
    nested = [info] if "exception_message" in info else [v for v in info.values() if isinstance(v, dict)]
    return sorted({str(v["exception_message"]) for v in nested if v.get("raised_exception")})[:EXAMPLES]


def _page(result: Any) -> str:
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    page: str = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
    return page
