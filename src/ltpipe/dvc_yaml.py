"""dvc.yaml from the Kedro graph: one source of truth for stages, their inputs, parameters, code and results.

    python -m ltpipe.dvc_yaml                   writes dvc.yaml of the embedded benchmark
    python -m ltpipe.dvc_yaml --check           fails where dvc.yaml is not what it would write
    python -m ltpipe.dvc_yaml imagenet_glt      writes pipelines/dvc/imagenet_glt/dvc.yaml (git-ignored)

A stage is a cost boundary: data | train a cell | measure a cell (export + evaluate) | judge | gate. Its deps are its
input files and the code it really runs: the import closure of its nodes' modules and of every module that its
parameters name, because an import graph does not see names. Hence editing one method re-runs that method's stages.
"""

import re
import sys
from pathlib import Path
from typing import Any

import click
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Pipeline

from ltpipe.benchmark import Benchmark, load
from ltpipe.parameters import names, read
from ltpipe.pipeline_registry import DEFAULT, project
from ltpipe.provenance import closure, source
from ltpipe.specs import Refused, Spec

HEADER = "# Written by `python -m ltpipe.dvc_yaml{name}` from the Kedro graph; edit that, not this.\n"
PARAMETERS = "conf/base/parameters"
REFERENCE = re.compile(r"\$\{(\w+\.[\w.]+)\}")
STAGES = ("data", "train", "measure", "judge", "gate")


class Projection:
    """The stages of one benchmark, paths relative to the project's root."""

    def __init__(self, root: Path, name: str, spec: Benchmark, pipeline: Pipeline, catalog: Any) -> None:
        self.root, self.name, self.spec, self.pipeline, self.catalog = root, name, spec, pipeline, catalog
        self.written = read(root / PARAMETERS / f"{name}.yml")

    def stages(self) -> dict[str, Any]:
        """Stage name -> stage, in the order in which they run."""
        found: dict[str, Any] = {}
        for tag in STAGES:
            nodes = self.pipeline.only_nodes_with_tags(tag).nodes
            cells = dict.fromkeys(str(n.namespace) if tag in ("train", "measure") else self.name for n in nodes)
            for cell in cells:
                part = Pipeline([n for n in nodes if tag not in ("train", "measure") or n.namespace == cell])
                found["-".join([tag, *cell.split(".")])] = self.stage(tag, cell, part)
        return found

    def stage(self, tag: str, cell: str, part: Pipeline) -> dict[str, Any]:
        """One stage: the nodes of `part`, by one kedro command."""
        where = f" --namespaces={cell}" if cell != self.name else ""
        blocks = sorted(name.removeprefix("params:") for name in part.inputs() if name.startswith("params:"))
        inputs = sorted(name for name in part.inputs() if not name.startswith("params:"))
        stage: dict[str, Any] = {"cmd": f"kedro run --pipeline={self.name} --tags={tag}{where}"}
        files = {path for block in map(self.block, blocks) for path in block.files()}
        stage["deps"] = sorted({*filter(None, map(self.file, inputs)), *files, *self.code(part, blocks)})
        if blocks:  # an empty list would make DVC watch the whole file
            stage["params"] = self.watched(blocks)
        for name in sorted(part.all_outputs()):
            path, kind, options = self.file(name), *self.ledger(name)
            if path is not None:
                stage.setdefault(kind, []).append({path: options} if options else path)
        return stage

    def watched(self, blocks: list[str]) -> list[dict[str, list[str]]]:
        """Keys by parameter file; a block that refers to another benchmark's is watched in both files."""
        keys: dict[str, list[str]] = {f"{PARAMETERS}/{self.name}.yml": blocks}
        for block in blocks:
            value: Any = self.written
            for part in block.split("."):
                value = value.get(part) if isinstance(value, dict) else value
                if isinstance(value, str) and (found := REFERENCE.fullmatch(value)):
                    other = found[1].partition(".")[0]
                    keys.setdefault(f"{PARAMETERS}/{other}.yml", []).append(found[1])
                    break
        return [{path: sorted(set(names))} for path, names in keys.items()]

    def file(self, name: str) -> str | None:
        """The dataset's path; None for what the ledger does not know: memory, scratch, files that may be absent."""
        dataset = self.catalog.get(name)
        path: Path | None = getattr(dataset, "path", None)
        if path is None or self.ledger(name)[0] == "none":
            return None
        relative = path.relative_to(self.root).as_posix()
        return None if relative.startswith("conf/") and not path.exists() else relative

    def ledger(self, name: str) -> tuple[str, dict[str, Any]]:
        """Kind of result (outs, metrics, plots, none) and its options."""
        options = dict(getattr(self.catalog.get(name), "metadata", None) or {})
        return options.pop("ledger", "outs"), options

    def block(self, name: str) -> Spec:
        """A parameter block by its dotted name; one that is a plain value (a seed) names nothing."""
        value: Any = self.spec
        for key in name.split(".")[1:]:
            value = value[key] if isinstance(value, dict) else getattr(value, key)
        return value if isinstance(value, Spec) else Spec()

    def code(self, part: Pipeline, blocks: list[str]) -> set[str]:
        """Source files that the nodes run."""
        named = {node.func.__module__ for node in part.nodes}
        named |= {module for block in map(self.block, blocks) for module in block.modules()}
        try:
            return {source(module).relative_to(self.root).as_posix() for module in closure(named)}
        except ValueError:
            raise Refused("dvc.yaml is written in a source tree, and ltpipe is installed elsewhere: uv sync") from None


def text(name: str, root: Path) -> str:
    """The content of dvc.yaml for one benchmark."""
    if name not in (known := names(root / "conf/base")):
        raise Refused(f"no benchmark {name!r}; benchmarks: {', '.join(known)}")
    spec = load(root / "conf/base", [name])[name]
    bootstrap_project(root)
    from kedro.framework.project import pipelines as registered

    with KedroSession.create(project_path=root) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
        stages = Projection(root, name, spec, registered[name], catalog).stages()
    content: dict[str, Any] = {"stages": stages}
    if name != DEFAULT:
        stages.update({key: {"wdir": "../../..", **stage} for key, stage in stages.items()})
    header = HEADER.format(name="" if name == DEFAULT else f" {name}")
    return header + yaml.safe_dump(content, sort_keys=False, width=1000)


@click.command()
@click.argument("benchmark", default=DEFAULT)
@click.option("--check", is_flag=True, help="Write nothing; fail where the file is not what would be written.")
def main(benchmark: str, check: bool) -> None:
    """Write dvc.yaml of BENCHMARK from the Kedro graph."""
    root = project()
    path = root / ("dvc.yaml" if benchmark == DEFAULT else f"pipelines/dvc/{benchmark}/dvc.yaml")
    wanted = text(benchmark, root)
    if check:
        if not path.exists() or path.read_text() != wanted:
            raise Refused(f"{path.relative_to(root)} is not what the graph says: python -m ltpipe.dvc_yaml")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(wanted)
    sys.stdout.write(f"{path.relative_to(root)}: {wanted.count('cmd: ')} stages\n")


if __name__ == "__main__":
    main()
