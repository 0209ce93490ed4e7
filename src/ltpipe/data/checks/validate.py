"""Validation of a manifest by great-expectations, which is imported only when a manifest is validated.

The context is ephemeral, and the report is built here from the results. A stored context would add identifiers and
times; a report that changes from run to run would make DVC retrain every model that depends on it.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from ltpipe.config.spec import Spec
from ltpipe.data.sampling.class_sizes import Sizes
from ltpipe.storage.manifest import COLUMNS, ROLES, Groups, fingerprint, role_of
from ltpipe.storage.table import Table

EXAMPLES = 10
# what the page of great-expectations fetches: styles, scripts and what they are called by, pictures, the footer's links
FETCHED = (
    r"<link\b[^>]*>",
    r"<script\b.*?</script>",
    r"<img\b[^>]*>",
    r"<footer\b.*?</footer>",
    r"<nav\b.*?</nav>",
    r"background(-image)?: *url\([^)]*\)[^;]*;",
    r'<a\b[^>]*href="http[^"]*".*?</a>',
    r"<p>Stay current on everything GX.*?</p>",
)
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem }
table { border-collapse: collapse; width: 100% } th, td { padding: .4rem .6rem; vertical-align: top; text-align: left }
tr { border-bottom: 1px solid #8886 } td span { overflow-wrap: anywhere } .col-md-2 { display: none }
.text-success { color: #0a7d33 } .text-danger { color: #c62828 } .modal, button, input { display: none }
.badge { border: 1px solid #8886; border-radius: .3rem; padding: 0 .3rem }
i.fa-check-circle::before { content: "\\2713" } i.fa-times::before { content: "\\2717" }
"""
# text columns with few different values
CATEGORIES = ("class_name", "role", "split", "group")


class GroupRule(Groups):
    """The rule that sorts classes into many, medium and few, and the splits whose class sizes it uses."""

    split: str | list[str] = Field(description="split whose class sizes decide; of several splits, the sum of sizes")


class Crops(Spec):
    """How many of the training's random boxes may be enlarged to the network's size, hence blurred."""

    upsampled: Annotated[float, Field(ge=0, le=1)] | Literal["whole"] = Field(
        description="largest share of boxes that are enlarged; whole: as many as when boxes are taken from the whole "
        "original pictures, as the authors take them"
    )


class Summary(Spec):
    """Facts about the class sizes of a split, for splits whose sizes are not known one by one. State at least one."""

    total: int | None = Field(None, ge=0, description="images of the split")
    classes: int | None = Field(None, ge=0, description="classes that have an image in the split")
    largest: int | None = Field(None, ge=0, description="images of the largest class")
    smallest: int | None = Field(
        None, ge=0, description="images of the smallest class; 1 or more: every class has an image in the split"
    )

    @model_validator(mode="after")
    def _check_not_empty(self) -> "Summary":
        if not self.stated_values():
            raise ValueError(f"state at least one of {', '.join(type(self).model_fields)}")
        return self

    def stated_values(self) -> dict[str, int]:
        """Return the stated values by name, JSON-able."""
        return self.model_dump(exclude_none=True)


def _counts_tag(value: Any) -> str:
    return "summary" if isinstance(value, Mapping | Summary) else "sizes"


# Images of each class: a list, run-length coded text ("500x3 497"), or a summary. By the discriminator pydantic knows
# which of them is meant, so that an error message is about that one only.
Counts = Annotated[Annotated[Sizes, Tag("sizes")] | Annotated[Summary, Tag("summary")], Discriminator(_counts_tag)]


class Expect(Spec):
    """The integers that the manifest must have. They are stated here, and never computed from the block `split`."""

    classes: int = Field(gt=0, description="number of classes")
    class_counts: dict[str, Counts] = Field(
        description="for each split, the images of class 0, 1, ... (a list, or text such as `500x3 497`), or a "
        "summary; a split's name begins with its role: train, val or test, alone or followed by _ and more"
    )
    attribute_counts: dict[str, Sizes] = Field(
        default_factory=dict, description="for each split, the images of attribute rank 0, 1, ..."
    )
    every_rank: list[str] = Field(
        default_factory=list, description="splits in which every class must have an image of every attribute rank"
    )
    ranks: int | None = Field(
        None,
        gt=0,
        description="number of attribute ranks, for every_rank; default: as in attribute_counts, first split",
    )
    groups: GroupRule = Field(description="rule that gives each class its group")
    crops: Crops | None = Field(
        None, description="how sharp random boxes must be; with it, their sharpness is measured"
    )

    @field_validator("class_counts")
    @classmethod
    def _roles(cls, counts: dict[str, Any]) -> dict[str, Any]:
        """The name of a split begins with its role, on which it depends what the split may be used for."""
        if wrong := [split for split in counts if role_of(split) is None]:
            raise ValueError(
                f"a split is called train, val or test, alone or followed by _ and more, not: {', '.join(wrong)}"
            )
        return counts

    @model_validator(mode="after")
    def _check_splits(self) -> "Expect":
        sizes = {split: len(counts) for split, counts in self.class_counts.items() if isinstance(counts, list)}
        if wrong := [f"{split} has {n}" for split, n in sizes.items() if n != self.classes]:
            raise ValueError(f"class_counts must state {self.classes} classes (classes): {', '.join(wrong)}")
        group_split = self.groups.split
        group_splits = {group_split} if isinstance(group_split, str) else set(group_split)
        if unknown := sorted((group_splits | {*self.every_rank, *self.attribute_counts}) - set(self.class_counts)):
            raise ValueError(f"splits that class_counts does not state: {', '.join(unknown)}")
        if self.every_rank and not (self.ranks or self.attribute_counts):
            raise ValueError("every_rank needs ranks, or attribute_counts")
        return self

    def plain_counts(self) -> dict[str, list[int] | dict[str, int]]:
        """Return class_counts, JSON-able."""
        return {s: c.stated_values() if isinstance(c, Summary) else c for s, c in self.class_counts.items()}


def build_suite(
    expect: Expect, images: int, raw: Path, crops: Mapping[str, Mapping[str, float]] | None = None
) -> list[Any]:
    """Return the expectations as great-expectations objects.

    images: number of different images in the manifest; raw: folder of the source's files; crops: see `validate`.
    """
    import great_expectations.expectations as gxe

    from ltpipe.data.checks import expectations

    labels = list(range(expect.classes))
    suite = [
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
        suite.append(expectations.ExpectAttributeCountsToEqual(counts=expect.attribute_counts))
    if ranks:
        suite.append(expectations.ExpectEveryRankInEveryClass(splits=expect.every_rank, ranks=ranks))
    if expect.crops is not None:
        suite.append(expectations.ExpectCropsToBeSharp(crops=crops or {}, upsampled=expect.crops.upsampled))
    return suite


def with_categories(candidate: Table) -> Table:
    """Return the same table with text columns of few values as categories.

    great-expectations hashes the table; a category is hashed and compared as a number, which is faster than as text.
    """
    return candidate.astype({column: "category" for column in CATEGORIES if column in candidate})


def validate(
    candidate: Table, raw: Path, expect: Expect, crops: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[dict[str, Any], str]:
    """Return a report and an HTML page (Data Docs) of the candidate's validation.

    The report is JSON-able, and has the same content for the same manifest. raw: folder of the source's files.
    crops: what ltpipe.data.crops measured, if it did.
    """
    import great_expectations as gx

    # the package sets this logger to INFO and logs the path of a temporary folder
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    asset = context.data_sources.add_pandas("manifest").add_dataframe_asset("manifest")
    images = candidate["image"].nunique(dropna=False) if "image" in candidate else len(candidate)
    expectations = build_suite(expect, images, raw, crops)
    suite = context.suites.add(gx.ExpectationSuite(name="manifest", expectations=expectations))
    definition = asset.add_batch_definition_whole_dataframe("manifest")
    # batch.validate would be shorter, but hashes the table once more
    validation = gx.ValidationDefinition(name="manifest", data=definition, suite=suite)
    result = context.validation_definitions.add(validation).run(
        batch_parameters={"dataframe": with_categories(candidate)},
        result_format={  # type: ignore[arg-type]
            "result_format": "SUMMARY",
            "unexpected_index_column_names": ["id"],
            "partial_unexpected_count": EXAMPLES,
        },
    )
    lines = [_report_line(outcome) for outcome in result.results]
    manifest = fingerprint(candidate) if result.success else None  # what is refused may have no columns or values
    facts = {"success": bool(result.success), "manifest": manifest, "rows": len(candidate)}
    measured = {"crops": crops} if crops else {}
    return facts | measured | {"expectations": lines}, _render_page(result)


def _report_line(outcome: Any) -> dict[str, Any]:
    """Return what the report says of one expectation: no times, no identifiers, no tracebacks of passing checks."""
    # the folder differs between machines, and reports of different machines must be comparable
    kwargs = {k: v for k, v in outcome.expectation_config.kwargs.items() if k not in ("batch_id", "folder")}
    examples = _violation_examples(outcome.result) or _exception_messages(outcome.exception_info)
    return {
        "name": " ".join([outcome.expectation_config.type, *([kwargs["column"]] if "column" in kwargs else [])]),
        "success": bool(outcome.success),
        "violations": _count_violations(outcome, examples),
        "examples": [] if outcome.success else examples,
        "expected": kwargs,
    }


def _count_violations(outcome: Any, examples: list[str]) -> int:
    """Return the number of wrong rows, or of a table rule's violations; at least 1 if the expectation failed."""
    return 0 if outcome.success else max(int(outcome.result.get("unexpected_count") or 0), len(examples), 1)


def _violation_examples(result: dict[str, Any]) -> list[str]:
    """Return up to EXAMPLES violations as text: rows by their id, a table rule's lines, or the observed value."""
    rows = result.get("partial_unexpected_index_list")
    if rows:
        return [", ".join(f"{key} {value}" for key, value in row.items()) for row in rows[:EXAMPLES]]
    details = result.get("details") or {}
    if "examples" in details:
        return [str(example) for example in details["examples"]]
    return [f"found {result['observed_value']}"[:300]] if "observed_value" in result else []


def _exception_messages(info: dict[str, Any]) -> list[str]:
    """Return the messages of checks that raised an exception, e.g. about a missing column.

    great-expectations reports such a check as failed. `info` describes one exception, or maps metrics to exceptions.
    """
    nested = [info] if "exception_message" in info else [v for v in info.values() if isinstance(v, dict)]
    return sorted({str(v["exception_message"]) for v in nested if v.get("raised_exception")})[:EXAMPLES]


def _render_page(result: Any) -> str:
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    page: str = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(result))
    return _without_network(page)


def _without_network(page: str) -> str:
    """Return the page with a style of its own, and without anything that a browser would fetch.

    The page takes its style, its scripts and its logo from six other hosts. A closed network shows it unstyled, and an
    open one tells these hosts who looks at it.
    """
    for wanted in FETCHED:
        page = re.sub(wanted, "", page, flags=re.DOTALL)
    return page.replace("</head>", f"<style>{STYLE}</style></head>", 1)
