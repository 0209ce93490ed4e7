"""Benchmark files: read, refused where a key is written twice, references and `like` resolved.

`like: cifar100_lt` takes the blocks of another benchmark and merges this file's over them; `like: {benchmark:
cifar100_lt, runs: [ce, ldam]}` takes only these of its runs. Blocks merge key by key. These replace what was there: a
list, a text, an empty mapping, a mapping whose keys are numbers (schedule.decay), `seeds` and `protocols`. Where
another module is chosen, the `options` of the first are dropped; where another method is, also its run's `start_from`,
`schedule` and `model`. What belongs to the other benchmark alone is not taken: `reported` numbers and reasons, and
`claims`.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from ltpipe.config.spec import Refused, Spec, parse

REFERENCE = re.compile(r"\$\{(\w+)\.")
# What belongs to a module: its options, and what a run says for the sake of its method.
OF_THE_MODULE = ("options", "start_from", "schedule", "model")
# The fields that choose a module (see MenuItem): with another module, what belongs to the first one means nothing.
CHOOSERS = dict.fromkeys(("name", "kind", "backbone", "method"), OF_THE_MODULE) | {
    key: (f"{key}_options",) for key in ("optimiser", "decay")
}
# what a schedule that does not say it chooses
CHOSEN = {"optimiser": "sgd", "decay": "cosine"}
# Blocks whose keys are names of the user's choice and that only make sense as a whole.
REPLACED = ("seeds", "protocols")


class Like(Spec):
    """The benchmark whose blocks are taken, and which of its runs."""

    benchmark: str
    runs: list[str] | None = Field(None, description="runs to take; default: all")


def benchmark_names(folder: Path) -> list[str]:
    """Return the benchmarks of conf/base/parameters: the file name is the name."""
    names = sorted(path.stem for path in (folder / "parameters").glob("*.yml"))
    if not names:
        raise Refused(f"no benchmark in {folder / 'parameters'}: one .yml file a benchmark")
    return names


def load_blocks(folder: Path, wanted: Collection[str]) -> dict[str, Any]:
    """Return the blocks of the benchmarks `wanted`, references and `like` resolved.

    Only the files of these benchmarks, and of those that they refer to, are read.
    """
    files = read_with_references(folder, wanted)
    blocks = resolve_references([files[name] for name in sorted(files)])
    return {name: resolve_like(blocks, name) for name in wanted}


def read_with_references(folder: Path, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the files of the benchmarks `wanted`, and of those that they refer to, by name."""
    files: dict[str, dict[str, Any]] = {}
    queue = list(wanted)
    while queue:
        name = queue.pop()
        if name in files:
            continue
        path = folder / f"{name}.yml"
        files[name] = read_benchmark_file(path)
        others = REFERENCE.findall(path.read_text("utf-8"))
        queue += [other for other in others if (folder / f"{other}.yml").exists()]
        queue += _liked(files[name][name], name, folder)
    return files


def _liked(block: Any, name: str, folder: Path) -> list[str]:
    """Return the benchmark that this one is like, if any. Raises Refused with the valid names if it does not exist."""
    like = block.get("like") if isinstance(block, Mapping) else None
    other = like.get("benchmark") if isinstance(like, Mapping) else like
    if not isinstance(other, str):
        return []
    if not (folder / f"{other}.yml").exists():
        known = ", ".join(benchmark_names(folder.parent))
        raise Refused(f"{folder / name}.yml, {name}.like: no benchmark {other!r}; benchmarks: {known}")
    return [other]


def read_benchmark_file(path: Path) -> dict[str, Any]:
    """Return a benchmark file as it is written, references ("${digits_glt.split}") unresolved."""
    import yaml

    try:
        content = _load_yaml(path.read_text("utf-8"), path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: not YAML: {error}") from None
    if not isinstance(content, dict) or list(content) != [path.stem]:
        found = f"it holds {', '.join(map(str, content))}" if isinstance(content, dict) and content else "it holds none"
        raise Refused(f"{path}: must hold one top-level key, {path.stem}, like the file's name; {found}")
    return content


def _load_yaml(text: str, path: Path) -> Any:
    """Parse YAML. Raises Refused if a key is written twice: YAML itself silently takes the last one."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
        if twice := list(_repeated_keys(node, ())):
            raise Refused(f"{path}: a key comes twice in one block:\n  " + "\n  ".join(twice))
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _repeated_keys(node: Any, above: tuple[str, ...]) -> Iterator[str]:
    """Yield a line for each key that is written more than once in a block of the tree below `node`."""
    if getattr(node, "id", "") == "sequence":
        for number, item in enumerate(node.value):
            yield from _repeated_keys(item, (*above, str(number)))
    elif getattr(node, "id", "") == "mapping":
        lines: dict[str, list[int]] = {}
        for key, value in node.value:
            lines.setdefault(str(key.value), []).append(key.start_mark.line + 1)
            yield from _repeated_keys(value, (*above, str(key.value)))
        for name, numbers in lines.items():
            if len(numbers) > 1:
                yield f"{'.'.join((*above, name))}: lines {', '.join(map(str, numbers))}"


def resolve_references(files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the files as one mapping, with references to one another's blocks resolved as Kedro does it."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge({}, *map(OmegaConf.create, files))
        blocks: Any = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise Refused(f"a reference between benchmark files: {error}") from None
    return dict(blocks)


def resolve_like(blocks: Mapping[str, Any], name: str, seen: tuple[str, ...] = ()) -> Any:
    """Return the block of benchmark `name` with what it takes from another by `like`.

    Raises Refused if that benchmark or run does not exist, or if benchmarks are like each other in a circle.
    """
    block = blocks[name]
    if not isinstance(block, Mapping) or "like" not in block:
        return block
    stated = {"benchmark": block["like"]} if isinstance(block["like"], str) else block["like"]
    like = parse(Like, stated, f"{name}.like")
    if like.benchmark not in blocks:
        raise Refused(f"{name}.like: no benchmark {like.benchmark!r}")
    if like.benchmark in (path := (*seen, name)):
        raise Refused(f"{name}.like: a circle, {' -> '.join([*path, like.benchmark])}")
    base = resolve_like(blocks, like.benchmark, path)
    return merge(_taken(base, like, name), {key: value for key, value in block.items() if key != "like"})


def _taken(base: Mapping[str, Any], like: Like, name: str) -> dict[str, Any]:
    """Return what is taken of the other benchmark."""
    runs = base.get("runs") or {}
    if unknown := [run for run in like.runs or () if run not in runs]:
        raise Refused(
            f"{name}.like.runs: {like.benchmark} has no run {', '.join(unknown)}; its runs: {', '.join(runs)}"
        )
    chosen = runs if like.runs is None else {run: runs[run] for run in like.runs}
    rows = {run: {key: value for key, value in row.items() if key != "reported"} for run, row in chosen.items()}
    shared = {key: value for key, value in (base.get("reported") or {}).items() if key != "why"}
    return {key: value for key, value in base.items() if key != "claims"} | {"runs": rows, "reported": shared}


def merge(base: Any, changes: Any) -> Any:
    """Return `base` with `changes` merged over it, as the module's docstring says."""
    if not (_is_block(base) and _is_block(changes)):
        return changes
    for chooser, belonging in CHOOSERS.items():
        before = base.get(chooser, CHOSEN.get(chooser))
        if before is not None and chooser in changes and before != changes[chooser]:
            base = {key: value for key, value in base.items() if key not in belonging}
    return dict(base) | {
        key: value if key in REPLACED or value == {} else merge(base.get(key), value) for key, value in changes.items()
    }


def _is_block(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def whole(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return a benchmark's validated parameters as plain YAML values; the stage `parameters` writes them."""
    return {key: _plain(value) for key, value in parameters.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if isinstance(value, Mapping):  # a module's name before its options
        return {key: _plain(value[key]) for key in sorted(value, key=lambda key: key == "options")}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
