"""docs/options.md: every parameter block with its options, types, defaults and descriptions."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ltpipe.benchmark import Benchmark
from ltpipe.config.spec import MenuItem, Spec, load_item, menu_names

HEADER = """# Options

Written by `ltpipe generate` from the parameter blocks in `src/ltpipe`; edit those, not this. A benchmark file is the
block `Benchmark`. Its blocks are below, each after the block that contains it; after a block that chooses a module come
the options of every module on that menu. Methods have cards of their own: [methods.md](methods.md).
"""
# The menu whose options have a page of their own.
ELSEWHERE = "ltpipe.methods"
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", NoneType: "null", Any: "any"}


def option_table(block: type[BaseModel]) -> list[str]:
    """Return one row for each option: name, type, default, description."""
    rows = [_row(name, field) for name, field in block.model_fields.items()]
    head = ["| option | type | default | what |", "|---|---|---|---|"]
    return [*head, *rows] if rows else ["No options."]


def _row(name: str, field: FieldInfo) -> str:
    kind = type_name(field.annotation, field.metadata).replace("|", "\\|")
    return f"| `{name}` | {kind} | {_default(field)} | {field.description or _summary(field.annotation) or '-'} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "its own defaults"
    return f"`{'null' if value is None else str(value).lower() if isinstance(value, bool) else value}`"


def _summary(annotation: Any) -> str:
    """Return the first sentence of a block's docstring."""
    blocks = [part for part in (annotation, *get_args(annotation)) if inspect.isclass(part)]
    docs = [inspect.getdoc(part) or "" for part in blocks if issubclass(part, BaseModel)]
    return docs[0].split("\n\n")[0].replace("\n", " ") if docs else ""


def type_name(annotation: Any, metadata: Any = ()) -> str:
    """Return a type in words, with the limits of its values."""
    limits = [f"{sign} {getattr(one, key)}" for one in metadata for key, sign in SIGNS.items() if hasattr(one, key)]
    return ", ".join([_words(annotation), *limits])


def _words(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(parts[0], _limits(parts[1:]))
    if origin in (Union, UnionType):
        return " or ".join(type_name(part) for part in parts)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (list, tuple):
        inner = [type_name(part) for part in parts if part is not Ellipsis]
        return f"list of {inner[0]}" if len(set(inner)) == 1 else f"list: {'; '.join(inner)}"
    if origin is dict:
        return f"mapping of {type_name(parts[0])} to {type_name(parts[1])}"
    if annotation in NAMES:
        return NAMES[annotation]
    return f"block `{annotation.__name__}`"


def _limits(metadata: tuple[Any, ...]) -> list[Any]:
    """Return the limits in an annotation's metadata, also inside a FieldInfo."""
    return [limit for one in metadata for limit in (one.metadata if isinstance(one, FieldInfo) else [one])]


def blocks(block: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a block and the blocks inside it, each once, outer blocks first."""
    seen: dict[type[BaseModel], None] = {}

    def visit(part: Any) -> None:
        if inspect.isclass(part) and issubclass(part, BaseModel):
            if part not in seen:
                seen[part] = None
                for field in part.model_fields.values():
                    visit(field.annotation)
        else:
            for inner in get_args(part):
                visit(inner)

    visit(block)
    yield from seen


def _menu(block: type[BaseModel]) -> Iterator[str]:
    """Yield the options of every module that the block can choose."""
    if not (issubclass(block, MenuItem) and hasattr(block, "menu")) or block.menu == ELSEWHERE:
        return
    for name in menu_names(block.menu):
        module = load_item(block.menu, name)
        yield from [f"### {block.field}: {name}", "", _headline(module), "", *option_table(module.Config), ""]
        for inner in list(blocks(module.Config))[1:]:
            yield from [f"Block `{inner.__name__}`:", "", *option_table(inner), ""]


def _headline(part: Any) -> str:
    return (inspect.getdoc(part) or "").split("\n\n")[0].replace("\n", " ")


def text(root: Path) -> str:
    """Return the whole page."""
    lines = [HEADER]
    for block in blocks(Benchmark):
        if block in (Spec, MenuItem):
            continue
        lines += [f"## {block.__name__}", "", _headline(block), "", *option_table(block), "", *_menu(block)]
    return "\n".join(lines).rstrip() + "\n"
