"""Files of parameters, one a benchmark: read, checked for keys that come twice, references to one another resolved."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ltpipe.specs import Refused

REFERENCE = re.compile(r"\$\{(\w+)\.")


def names(folder: Path) -> list[str]:
    """The benchmarks of conf/base/parameters: the file name is the name."""
    found = sorted(path.stem for path in (folder / "parameters").glob("*.yml"))
    if not found:
        raise Refused(f"no benchmark in {folder / 'parameters'}: one .yml file a benchmark")
    return found


def blocks(folder: Path, wanted: Collection[str]) -> dict[str, Any]:
    """The blocks `wanted` of the folder's files, references resolved; only files that they refer to are read beside."""
    files: dict[str, dict[str, Any]] = {}
    queue = list(wanted)
    while queue:
        name = queue.pop()
        if name not in files:
            path = folder / f"{name}.yml"
            files[name] = read(path)
            queue += [
                other for other in REFERENCE.findall(path.read_text("utf-8")) if (folder / f"{other}.yml").exists()
            ]
    whole = resolved([files[name] for name in sorted(files)])
    return {name: whole[name] for name in wanted}


def read(path: Path) -> dict[str, Any]:
    """A benchmark file as it stands, references ("${digits_glt.split}") unresolved."""
    import yaml

    try:
        content = _content(path.read_text("utf-8"), path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: not YAML: {error}") from None
    if not isinstance(content, dict) or list(content) != [path.stem]:
        raise Refused(f"{path}: must hold one top-level key, {path.stem}")
    return content


def _content(text: str, path: Path) -> Any:
    """What the YAML says. Raises Refused where a key comes twice: YAML itself takes the last one and says nothing."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        if twice := list(_twice(node, ())):
            raise Refused(f"{path}: a key comes twice in one block:\n  " + "\n  ".join(twice))
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _twice(node: Any, above: tuple[str, ...]) -> Iterator[str]:
    """A line for each key that a block of the tree below `node` states more than once."""
    if getattr(node, "id", "") == "sequence":
        for number, item in enumerate(node.value):
            yield from _twice(item, (*above, str(number)))
    elif getattr(node, "id", "") == "mapping":
        lines: dict[str, list[int]] = {}
        for key, value in node.value:
            lines.setdefault(str(key.value), []).append(key.start_mark.line + 1)
            yield from _twice(value, (*above, str(key.value)))
        for name, found in lines.items():
            if len(found) > 1:
                yield f"{'.'.join((*above, name))}: lines {', '.join(map(str, found))}"


def resolved(files: list[dict[str, Any]]) -> dict[str, Any]:
    """The files as one mapping, references to one another's blocks resolved, as Kedro does it."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        whole = OmegaConf.merge({}, *map(OmegaConf.create, files))
        blocks: Any = OmegaConf.to_container(whole, resolve=True)
    except OmegaConfBaseException as error:
        raise Refused(f"a reference between benchmark files: {error}") from None
    return dict(blocks)
