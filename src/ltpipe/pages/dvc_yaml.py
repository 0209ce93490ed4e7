"""dvc.yaml from the Kedro graph: one source of truth for stages, their inputs, parameters, code and results.

A stage is a cost boundary: parameters | fetch | cluster | split | train a cell | evaluate a cell (which exports it
first) | report | gate. If the benchmark says `seeds_together`, all cells of a run are one stage. A stage depends on its
input files, on keys of the file that the stage `parameters` writes, and on the code that it runs: the imports of its
nodes' modules and of every module that its parameters name (an import graph does not see names), directly or not. So an
edited method re-runs the stages of its own runs only.

A folder stands for its files where the stage depends on all of them. Modules that hold nothing but a docstring are
left out; the stage `parameters`, which runs after every edit, refuses to go on if dvc.yaml is not what it should be.
The stage `evaluate` does not repeat the code of its cells' training: the checkpoint, on which it depends, states the
version of that code, so a change there changes the checkpoint.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import yaml
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.pipeline import Node, Pipeline

from ltpipe.benchmark import Benchmark, load
from ltpipe.config.parameters import benchmark_names
from ltpipe.config.spec import Refused, Spec
from ltpipe.pipeline_registry import DEFAULT, STAGES, project_root
from ltpipe.recipe.cell import code_modules
from ltpipe.recipe.run import Run
from ltpipe.storage.atomic import write_atomically
from ltpipe.storage.provenance import has_code, import_closure, source_path

HEADER = "# Written by `ltpipe generate{name}` from the Kedro graph; edit that, not this.\n"
# stage of dvc.yaml -> the graph's stages that it runs: an export takes seconds, less than one more process to start
TAGS = {stage: (stage,) for stage in STAGES if stage != "export"} | {"evaluate": ("export", "evaluate")}
OF_A_CELL = ("train", "evaluate")
CODE = "src/ltpipe"
ACCEPTED = "conf/accepted"
WIDTH = 100
MANY = 10  # with a line for each path of a stage, dvc.yaml of a benchmark with 12 seeds would have 600 lines


class Projection:
    """The stages of one benchmark, with paths relative to the project's root."""

    def __init__(self, root: Path, name: str, spec: Benchmark, pipeline: Pipeline, catalog: Any) -> None:
        self.root, self.name, self.spec, self.pipeline, self.catalog = root, name, spec, pipeline, catalog

    def stages(self) -> dict[str, Any]:
        """Return stage name -> stage, in the order in which they run."""
        stages: dict[str, Any] = {}
        for stage, tags in TAGS.items():
            nodes = self.pipeline.only_nodes_with_tags(*tags).nodes
            for where in dict.fromkeys(self.namespace(stage, node) for node in nodes):
                part = Pipeline([node for node in nodes if self.namespace(stage, node) == where])
                stages["-".join([stage, *where.split(".")])] = self.stage(stage, where, part)
        return stages

    def plots(self) -> list[dict[str, Any]]:
        """Return the plots of all runs: one for training, and two for each protocol."""
        trained = [run for run, row in self.spec.runs.items() if row.train.start_from is None]
        # the others have a short training of their own, or none
        found = [self.plot("validation", "training", ("epoch", "macro recall on validation (%)"), sorted(trained))]
        for protocol, splits in self.spec.evaluate.protocols.items():
            runs = [run for run, row in self.spec.runs.items() if row.train.split == splits.train]
            columns = sorted(f"{protocol}.{run}" for run in runs)
            of = f"{protocol}: "
            if columns:
                found.append(self.plot(f"{of}recall", "recall", ("train_images", "recall of classes (%)"), columns))
                axes = ("confidence", "accuracy (%)")
                found.append(self.plot(f"{of}reliability", "reliability", axes, columns))
        return found

    def plot(self, title: str, table: str, axes: tuple[str, str], columns: list[str]) -> dict[str, Any]:
        """Return one plot with a line for each column of a table. axes: the column on the x axis, a label for y.

        .dvc/plots/runs.json draws it: a colour for each run, and no point where a table is empty.
        """
        x, label = axes
        words = {"train_images": "training images of the class", "confidence": "confidence (%)"}
        lines = {
            "template": "runs",
            "x": x,
            "y": {self.file(f"{self.name}.{table}"): columns},
            "x_label": words.get(x, x),
        }
        return {f"{self.name} {title}": lines | {"y_label": label, "title": f"{self.name}, {title}, mean over seeds"}}

    def artifacts(self) -> dict[str, Any]:
        """Return the models for DVC's registry: of each run the exported one of its first seed."""
        found = {}
        for run in self.spec.runs:
            seed = self.spec.seeds_of(run)[0]
            described = {"type": "model", "desc": f"{run} of {self.name}, seed {seed}, as ONNX", "labels": [self.name]}
            name = f"{self.name}-{run}".replace("_", "-").lower()  # DVC allows no other sign
            found[name] = {"path": self.file(f"{self.name}.{run}.{seed}.onnx"), **described}
        return found

    def namespace(self, stage: str, node: Node) -> str:
        """Return the namespace that the node's stage runs: the benchmark, a cell, or a run with all of its cells."""
        if stage not in OF_A_CELL:
            return self.name
        cell = str(node.namespace)
        return cell.rpartition(".")[0] if self.spec.seeds_together else cell

    def stage(self, name: str, where: str, part: Pipeline) -> dict[str, Any]:
        """Return the stage called `name`: the nodes of `part`, run by one kedro command; where: their namespace."""
        only = f" --namespaces={where}" if where != self.name else ""
        asked = sorted(i.removeprefix("params:") for i in part.inputs() if i.startswith("params:"))
        blocks = [block for block in asked if block != self.name]
        inputs = sorted(i for i in part.inputs() if not i.startswith("params:"))
        tags = ",".join(TAGS[name])
        stage: dict[str, Any] = {"cmd": f"kedro run --pipeline={self.name} --tags={tags}{only}"}
        if name == "parameters":  # runs after any edit of code or settings: a new run or import must be in dvc.yaml
            stage["cmd"] = f"ltpipe generate --check {self.name} && {stage['cmd']}"
        if name == "fetch" and self.spec.source.reads_outside():
            stage["always_changed"] = True  # a folder of the user's may change at any time
        files = self.files(blocks)
        code = self.settings() if name == "parameters" else self.code(name, part, blocks)
        if blocks != asked and name != "parameters":  # a node takes the whole benchmark
            inputs.append(f"{self.name}.parameters")
        stage["deps"] = sorted({*filter(None, map(self.file, inputs)), *files, *code})
        if blocks and name != "parameters":  # an empty list would make DVC watch the whole file
            keys = [block.removeprefix(f"{self.name}.") for block in blocks]
            stage["params"] = [{self.file(f"{self.name}.parameters"): keys}]
        for output in sorted(part.all_outputs()):
            path, kind, options = self.file(output), *self.ledger(output)
            if path is not None:
                stage.setdefault(kind, []).append({path: options} if options else path)
        return stage

    def files(self, blocks: list[str]) -> set[str]:
        """Return the user's files that these parameter blocks name, with those of the network that a run changes."""
        found = [self.block(name) for name in blocks]
        found += [self.spec.model.with_changes(block.model) for block in found if isinstance(block, Run)]
        return {path for block in found for path in block.files()}

    def settings(self) -> list[str]:
        """Return what the whole of the parameters depends on: the settings, the code with their defaults, the graph."""
        folders = [path for path in ("conf/base", "conf/local", CODE) if (self.root / path).is_dir()]
        graph = (self.root / "pipelines").rglob("*.py")  # the folder holds ledgers too, and these change with every run
        return [*folders, *(path.relative_to(self.root).as_posix() for path in graph)]

    def file(self, name: str) -> str | None:
        """Return the dataset's path; None for memory and scratch, which DVC ignores.

        Instead of an accepted baseline, which may not exist yet, it is the folder of all of them, which does.
        """
        path: Path | None = getattr(self.catalog.get(name), "path", None)
        if path is None or self.ledger(name)[0] == "none":
            return None
        relative = path.relative_to(self.root).as_posix()
        return ACCEPTED if relative.startswith(f"{ACCEPTED}/") else relative

    def ledger(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return the kind of result (outs, metrics, plots, none) and its options."""
        options = dict(getattr(self.catalog.get(name), "metadata", None) or {})
        options.pop("kedro-viz", None)
        return options.pop("ledger", "outs"), options

    def block(self, name: str) -> Spec:
        """Return a parameter block by its dotted name; a plain value (a seed) names no modules and no files."""
        value: Any = self.spec
        for key in name.split(".")[1:]:
            value = value[key] if isinstance(value, dict) else getattr(value, key)
        return value if isinstance(value, Spec) else Spec()

    def code(self, stage: str, part: Pipeline, blocks: list[str]) -> list[str]:
        """Return the source files that the nodes run, folders where all of a folder's files are among them."""
        named = {node.func.__module__ for node in part.nodes} | {"ltpipe.storage.datasets"}
        named |= {module for block in map(self.block, blocks) for module in block.modules()}
        if stage == "cluster":
            named |= self.modules_of_checkpoint()
        trained: frozenset[str] = frozenset()
        if stage in ("train", "evaluate"):
            run = str(part.nodes[0].namespace).split(".")[1]
            trained = code_modules(self.spec.runs[run].train, self.spec.schedule, self.spec.model)
        modules = set(import_closure(named | trained if stage == "train" else named))
        if stage == "evaluate":
            modules -= set(import_closure(trained))
        try:
            paths = {
                source_path(module).relative_to(self.root).as_posix()
                for module in modules
                if has_code(source_path(module))
            }
        except ValueError:
            raise Refused("dvc.yaml is written in a source tree, and ltpipe is installed elsewhere: uv sync") from None
        return fold(paths, self.root)

    def modules_of_checkpoint(self) -> frozenset[str]:
        """Return the method and the backbone of the cell that clusters start from."""
        if self.spec.cluster is None or self.spec.cluster.start_from is None:
            return frozenset()
        other, run, _ = self.spec.cluster.start_from.split(".")
        spec = load(self.root / "conf/base", [other])[other]
        return spec.runs[run].train.modules() | spec.model.modules()


def fold(paths: Iterable[str], root: Path) -> list[str]:
    """Return `paths` with a folder in place of its files where all of them are there (__main__.py does not count)."""
    kept = set(paths)
    folders = [folder for folder in sorted((root / CODE).rglob("*")) if folder.is_dir()]
    for folder in sorted(folders, key=lambda path: len(path.parts)):
        name = folder.relative_to(root).as_posix()
        files = {
            file.relative_to(root).as_posix()
            for file in folder.rglob("*.py")
            if file.name != "__main__.py" and has_code(file)
        }
        if len(files) > 1 and files <= kept:
            kept = (kept - files) | {name}
    return sorted(kept)


class Dumper(yaml.SafeDumper):
    """Block style, but for short lists, mappings in lists, and lists of very many paths."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a list again where it occurs again."""
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        """Write a list that is short enough in one line, a mapping in a line of its own, many paths in full lines."""
        short = len(sequence) == 1 or len(", ".join(map(str, sequence))) < WIDTH
        full = len(sequence) >= MANY and all(isinstance(entry, str) for entry in sequence)
        node = super().represent_sequence(tag, sequence, flow_style=short or full)
        for entry in node.value:
            if isinstance(entry, yaml.MappingNode):
                entry.flow_style = True
        return node


def text(name: str, root: Path) -> str:
    """Return the content of dvc.yaml for one benchmark."""
    if name not in (known := benchmark_names(root / "conf/base")):
        raise Refused(f"no benchmark {name!r}; benchmarks: {', '.join(known)}")
    spec = load(root / "conf/base", [name])[name]
    bootstrap_project(root)
    from kedro.framework.project import pipelines as registered

    with KedroSession.create(project_path=root) as session:
        catalog = session.load_context().catalog  # type: ignore[attr-defined]
        projection = Projection(root, name, spec, registered[name], catalog)
        stages, views = projection.stages(), {"plots": projection.plots(), "artifacts": projection.artifacts()}
    if name != DEFAULT:
        stages = {key: {"wdir": "../../..", **stage} for key, stage in stages.items()}
        views = from_folder_of_ledger(views)
    header = HEADER.format(name="" if name == DEFAULT else f" {name}")
    return header + dump(stages, **views)


def from_folder_of_ledger(views: Any) -> Any:
    """Return plots and artifacts with paths from pipelines/dvc/<benchmark>: unlike stages, they have no wdir."""
    if isinstance(views, dict):
        return {from_folder_of_ledger(key): from_folder_of_ledger(value) for key, value in views.items()}
    if isinstance(views, list):
        return [from_folder_of_ledger(entry) for entry in views]
    return f"../../../{views}" if str(views).startswith("data/") else views


def dump(stages: dict[str, Any], **views: Any) -> str:
    """Return stages, by name, plots and artifacts, as dvc.yaml lists them."""
    content: str = yaml.dump({"stages": stages, **views}, Dumper=Dumper, sort_keys=False, width=WIDTH)
    return content


def place(name: str, root: Path) -> Path:
    """Return where the dvc.yaml of a benchmark is: only the default one is checked in."""
    return root / ("dvc.yaml" if name == DEFAULT else f"pipelines/dvc/{name}/dvc.yaml")


@click.command()
@click.argument("benchmark", default=DEFAULT)
@click.option("--check", is_flag=True, help="Write nothing; fail if the file is not what would be written.")
def command(benchmark: str, check: bool) -> None:
    """Write dvc.yaml of BENCHMARK from the Kedro graph."""
    root = project_root()
    path, wanted = place(benchmark, root), text(benchmark, root)
    if check:
        if not path.exists() or path.read_text() != wanted:
            raise Refused(f"{path.relative_to(root)} is not what the graph says: ltpipe generate")
        return
    write_atomically(path, wanted.encode())
    sys.stdout.write(f"{path.relative_to(root)}: {wanted.count('cmd: ')} stages\n")
