"""Write docs/options.md: every parameter block with its options, types, defaults and descriptions."""

import inspect
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ltpipe.benchmark import Benchmark
from ltpipe.config.spec import MenuItem, Spec, load_item, menu_names
from ltpipe.evaluation import metrics
from ltpipe.interface.phases import When

HEADER = """# Options

Written by `ltpipe generate` from the parameter blocks in `src/ltpipe`; edit those, not this page. A benchmark file is
the block `Benchmark`. Every other block comes after the block that contains it. A block that chooses a module is
followed by the options of every module that it can choose. The options of methods are in [methods.md](methods.md).
"""
METRICS = """The metric paths of `gate`, `claims` and `reported` are `<protocol>.<metric>.<part>`, such as
`glt.accuracy.few`, or, if the metric has no parts, `<protocol>.<metric>`. All values are in percent."""
ELSEWHERE = "ltpipe.methods"  # the menu that docs/methods.md documents
# Limits of a number as annotated-types spells them, and as the page shows them.
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", NoneType: "null", Any: "any value"}


def option_table(block: type[BaseModel]) -> list[str]:
    """Return one row for each option: name, type, default, description."""
    rows = [_option_row(name, field) for name, field in block.model_fields.items()]
    rows += [f"| `{name}` | - | none | {what} |" for name, what in getattr(block, "read_before", {}).items()]
    head = ["| option | type | default | what |", "|---|---|---|---|"]
    return [*head, *rows] if rows else ["No options."]


def _option_row(name: str, field: FieldInfo) -> str:
    kind = type_name(field.annotation, field.metadata).replace("|", "\\|")  # a bare | would end the table's cell
    what = field.description or _summarise_block(field.annotation) or "-"
    return f"| `{name}` | {kind} | {_show_default(field)} | {what} |"


def _show_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, tuple):
        value = list(value)  # as it is written in YAML
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


def _summarise_block(annotation: Any) -> str:
    """Return the first paragraph of the docstring of the block in a type; "" if there is none."""
    classes = [part for part in (annotation, *get_args(annotation)) if inspect.isclass(part)]
    docs = [inspect.getdoc(part) or "" for part in classes if issubclass(part, BaseModel)]
    return docs[0].split("\n\n")[0].replace("\n", " ") if docs else ""


def type_name(annotation: Any, metadata: Any = ()) -> str:
    """Return a type in words, with the limits of its values. metadata: annotations with attributes ge, gt, le, lt."""
    limits = [f"{sign} {getattr(part, key)}" for part in metadata for key, sign in SIGNS.items() if hasattr(part, key)]
    return ", ".join([_describe_type(annotation), *limits])


def _describe_type(annotation: Any) -> str:
    """Return a type in words; only a type inside Annotated brings its limits along."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(parts[0], _collect_limits(parts[1:]))
    if origin in (Union, UnionType):
        return " or ".join(_describe_alternatives(parts))
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (list, tuple):
        inner = [type_name(part) for part in parts if part is not Ellipsis]
        if len(set(inner)) == 1 and " or " in inner[0]:
            return f"list of ({inner[0]})"
        return f"list of {inner[0]}" if len(set(inner)) == 1 else f"list: {'; '.join(inner)}"
    if origin is dict:
        return f"mapping of {type_name(parts[0])} to {type_name(parts[1])}"
    if annotation in NAMES:
        return NAMES[annotation]
    return f"block `{annotation.__name__}`"


def _describe_alternatives(parts: tuple[Any, ...]) -> list[str]:
    """Return the members of a union in words; the two members of `When` become one."""
    time = get_args(When)  # Python flattens unions, so `When | None` has three members
    if not all(member in parts for member in time):
        return [type_name(part) for part in parts]
    return ["epoch or share of all epochs", *(type_name(part) for part in parts if part not in time)]


def _collect_limits(metadata: tuple[Any, ...]) -> list[Any]:
    """Return the limits in the metadata of Annotated, also those inside a FieldInfo (Annotated[int, Field(ge=0)])."""
    return [limit for part in metadata for limit in (part.metadata if isinstance(part, FieldInfo) else [part])]


def nested_blocks(block: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a block and all blocks inside it, outer blocks first, and no block twice."""
    # a dict instead of a set, because it keeps the order
    seen: dict[type[BaseModel], None] = {}

    def visit(part: Any) -> None:
        if inspect.isclass(part) and issubclass(part, BaseModel):
            if part not in seen:
                seen[part] = None
                for field in part.model_fields.values():
                    visit(field.annotation)
        else:  # a type with arguments, e.g. dict[str, Protocol] or Clusters | None
            for inner in get_args(part):
                visit(inner)

    visit(block)
    yield from seen


def _menu_sections(block: type[BaseModel]) -> Iterator[str]:
    """Yield the lines of a section for every module that the block can choose; none if it chooses no module."""
    if not (issubclass(block, MenuItem) and hasattr(block, "menu")) or block.menu == ELSEWHERE:
        return
    for name in menu_names(block.menu):
        module = load_item(block.menu, name)
        yield from [f"### {block.field}: {name}", "", _first_paragraph(module), "", *option_table(module.Config), ""]
        for inner in list(nested_blocks(module.Config))[1:]:
            yield from [f"Block `{inner.__name__}`:", "", *option_table(inner), ""]


def _metrics_section() -> Iterator[str]:
    """Yield the lines of the section on metric paths: a row for each metric."""
    yield from ["## Metrics", "", METRICS, "", "| metric | parts | better | what |", "|---|---|---|---|"]
    for name in menu_names(metrics.MENU):
        module = load_item(metrics.MENU, name)
        parts = ", ".join(f"`{part}`" for part in module.PARTS) if metrics.has_parts(name) else "none"
        better = "higher" if module.HIGHER_IS_BETTER else "lower"
        yield f"| `{name}` | {parts} | {better} | {_first_paragraph(module)} |"


def _first_paragraph(part: Any) -> str:
    """Return the first paragraph of a docstring on one line."""
    return (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")


def render_options() -> str:
    """Return the content of docs/options.md."""
    lines = [HEADER]
    for block in nested_blocks(Benchmark):
        if block in (Spec, MenuItem):
            continue
        lines += [f"## {block.__name__}", "", _first_paragraph(block), ""]
        lines += [*option_table(block), "", *_menu_sections(block)]
        for choice in getattr(block, "chooses", ()):
            lines += _menu_sections(choice)
    lines += _metrics_section()
    return "\n".join(lines).rstrip() + "\n"
