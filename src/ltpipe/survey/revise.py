"""A benchmark's file that was written by a program and edited by a person: what the program rewrites, what it keeps."""

import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MISSING = object()
# what the data alone decide: any other value is refused when the split is drawn, so none is a person's choice
FACTS = ("expect.classes", "expect.class_counts")


class Revised(NamedTuple):
    """The new text; which keys were changed, and which edits were kept, a line for each."""

    text: str
    changed: list[str]
    kept: list[str]


def leaves(block: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a block with their dotted keys; a list is a value."""
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def split_header(text: str) -> tuple[str, str]:
    """Return the comment at the top of a file, and the rest."""
    lines = text.splitlines(keepends=True)
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:end]), "".join(lines[end:])


def revise(text: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Revised:
    """Return a file in which `after` replaces what is still as it was `before`; comments and other keys stay.

    name: of the block. before: what was written the last time; {} if that is not known: then only FACTS are replaced.
    """
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 120, True  # type: ignore[assignment]
    header, body = split_header(text)
    document = yaml.load(body)
    changed, kept = _merge(document[name], dict(leaves(before)), dict(leaves(after)))
    stream = io.StringIO()
    yaml.dump(document, stream)
    return Revised(header + stream.getvalue(), changed, kept)


def _merge(block: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Change the block in place; return which keys were changed and which edits were kept."""
    changed, kept = [], []
    for key in dict.fromkeys([*before, *after]):
        now, old, new = _get(block, key), before.get(key, MISSING), after.get(key, MISSING)
        if now == new:
            continue
        if now != old and not key.startswith(FACTS):
            kept.append(f"{key}: {_shown(now)}, an edit (it would be {_shown(new)})")
            continue
        _set(block, key, new)
        changed.append(f"{key}: {_shown(now)} -> {_shown(new)}")
    return changed, kept


def _shown(value: Any) -> str:
    text = "nothing" if value is MISSING else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _get(block: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(block, Mapping) or part not in block:
            return MISSING
        block = block[part]
    return block


def _set(block: Any, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        block = block.setdefault(parent, {})
    if value is MISSING:
        del block[last]
    else:
        block[last] = value
