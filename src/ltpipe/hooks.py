"""Kedro hooks: refuse parameters, paths and runners before anything runs; keep looks apart; delete stale outputs."""

import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from ltpipe.benchmark import Benchmark, load
from ltpipe.config.parameters import benchmark_names, read_with_references, resolve_like
from ltpipe.config.spec import Refused, parse
from ltpipe.data.identity import drawn_by
from ltpipe.pipeline_registry import project_root, requested_benchmarks
from ltpipe.training.scratch import discard

log = logging.getLogger("ltpipe")

RUNNERS = ("SequentialRunner", "ParallelRunner")
# tags of nodes that only read the verdict, or whose results it does not depend on
KEEP_THE_VERDICT = {"parameters", "gate"}
# Tags of nodes whose old outputs stay until the new ones replace them. They state what they were made of, and of which
# checkpoint, and every reader checks that; so an old one is good, or is refused.
REPLACE_WHEN_WHOLE = {"train", "export", "evaluate"}
# key of a dataset's metadata: it is the file that the node itself has written before, and may keep
KEPT = "kept"
FRESH = "LTPIPE_FRESH"  # environment variable that `kedro run --fresh` sets
# what the stage split draws; it belongs together
DRAWN = ("manifest", "images", "originals", "pictures", "picture_sizes", "data_identity")
INDEXED = ("index", "clustered")  # what it is drawn from
LOOK = "look"  # the folder of looks, in the folder of results


class Looks:
    """Keep runs with changed parameters (--params, or another environment) away from the ledger's results.

    They write into <data>/look, those of an environment into <data>/look/<environment>. What such a run needs and does
    not make, it reads from the last look, or else from the results.
    """

    root = results = looks = Path()
    loader: Any = None

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: Any) -> None:
        """Set the folder of the run's results, before anything reads the catalog."""
        self.loader, self.root = context.config_loader, context.project_path
        known, other = self.loader["globals"], _other_environments(self.loader)
        self.results = self.looks = self.root / known["data"]  # as in the catalog: Kedro makes its paths absolute
        moved = Path(self.loader.conf_source).resolve() != (self.root / "conf").resolve()
        if not self.loader.runtime_params and not other and not moved:
            return
        place = "/".join([known["data"], LOOK, *other])
        self.looks = self.root / place
        self.loader["globals"] = known | {"data": place}
        log.info("parameters are changed for this run: it writes below %s, and the results stay as they are", place)

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: Any) -> None:
        """Choose where the run reads what it needs and does not make. Raises Refused if its data are not drawn."""
        if self.looks == self.results:
            return
        needed = sorted(pipeline.inputs())
        if undrawn := [name for name in needed if name.partition(".")[2] in INDEXED]:
            raise Refused(
                f"{', '.join(undrawn)}: a run with changed parameters draws its data as a whole, since an index does "
                "not say of which parameters it is: --tags=fetch,cluster,split"
            )
        drawn = {name.split(".")[0] for name in needed if name.partition(".")[2] in DRAWN}
        for benchmark in sorted(drawn):
            self._choose_data(benchmark, [name for name in needed if name in _drawn_of(benchmark)], catalog)
        for name in needed:
            dataset = catalog.get(name)
            # must_exist: not a scratch folder, which is written to
            if getattr(dataset, "must_exist", False) and name.partition(".")[2] not in DRAWN:
                self._fall_back(name, dataset)

    def _choose_data(self, benchmark: str, names: list[str], catalog: Any) -> None:
        """Take manifest, images and what belongs to them from one place, which these parameters drew.

        The results come first: what an earlier look drew may be of pictures that have changed since.
        """
        spec = Benchmark.model_validate(self.loader["parameters"][benchmark])
        asked = drawn_by(spec.source, spec.split, spec.expect, spec.cluster)
        note = catalog.get(f"{benchmark}.data_identity").path.relative_to(self.looks)
        place = next((place for place in (self.results, self.looks) if _states(place / note, asked)), None)
        if place is None:
            raise Refused(
                f"no data of {benchmark} are drawn by these parameters: draw them with the same ones first, kedro run "
                f"--pipeline={benchmark} --tags=fetch,cluster,split"
            )
        for name in names:
            dataset = catalog.get(name)
            dataset.path = place / dataset.path.relative_to(self.looks)
        log.info("the data of %s are read from %s", benchmark, os.path.relpath(place, self.root))

    def _fall_back(self, name: str, dataset: Any) -> None:
        """Read a dataset from the results if no look has made it."""
        result = self.results / dataset.path.relative_to(self.looks)
        if not dataset.path.exists() and result.exists():
            dataset.path = result
            log.info("%s is read from %s", name, os.path.relpath(result, self.root))


def _drawn_of(benchmark: str) -> set[str]:
    return {f"{benchmark}.{name}" for name in DRAWN}


def _states(path: Path, asked: Mapping[str, Any]) -> bool:
    """Tell whether the identity of the data in this file has every value of `asked`."""
    if not path.exists():
        return False
    found = json.loads(path.read_bytes())
    return all(found.get(key) == value for key, value in asked.items())


def _other_environments(loader: Any) -> set[str]:
    """Return the environment, if it is another than conf/base and conf/local, which DVC watches."""
    return {loader.env} - {None, loader.base_env, "local"}


class WholeParameters:
    """Validate the parameters of the requested benchmarks, with the changes of environment and command line.

    The validated whole replaces what was read, so that every node sees the defaults of blocks that a file leaves out.
    """

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Raise Refused if the merged parameters are not benchmarks."""
        base, loader = project_root() / "conf/base", context.config_loader
        known = benchmark_names(base)
        names = requested_benchmarks(known)
        if not names:  # an unknown benchmark, which the registry refuses with the valid names
            loader["parameters"] = {}
            return
        needed = read_with_references(base / "parameters", names)
        loader.config_patterns["parameters"] = _parameter_files(loader, known, needed)
        read = loader["parameters"]
        if unknown := sorted(set(read) - set(known)):
            raise Refused(f"parameters of no benchmark: {', '.join(unknown)}; benchmarks: {', '.join(known)}")
        if ignored := sorted(set(loader.runtime_params or {}) - set(needed)):
            raise Refused(f"--params of {', '.join(ignored)}, but the command runs {', '.join(names)}")
        specs = {name: parse(Benchmark, resolve_like(read, name), f"parameters of {name}") for name in names}
        built = load(base, names)
        for name in names:
            _same_graph(name, built[name], specs[name], looks=bool(loader.runtime_params))
        if _other_environments(loader):
            _say_if_unchanged(loader.env, specs, built)
        loader["parameters"] = {name: spec.model_dump() for name, spec in specs.items()}


def _say_if_unchanged(environment: str, merged: Mapping[str, Benchmark], base: Mapping[str, Benchmark]) -> None:
    """Warn if an environment that was asked for changes nothing: --env=smoke would then train at full length."""
    for name, spec in merged.items():
        if spec == base[name]:
            log.warning(
                "environment %s changes nothing of %s; a file conf/%s/parameters/%s.yml would", *(environment, name) * 2
            )


def _parameter_files(loader: Any, known: Collection[str], needed: Collection[str]) -> list[str]:
    """Return the parameter files that Kedro has to read: all that it would, but for benchmarks that are not needed.

    Kedro would read every benchmark, and make a dataset of each of their 2,000 parameters: 0.5 s of every start.
    """
    conf = Path(loader.conf_source)
    unneeded = {f"parameters/{name}.yml" for name in set(known) - set(needed)}
    base = _named_parameters(conf / "base") - unneeded
    return sorted(base | _named_parameters(conf / (loader.env or loader.default_run_env)))


def _named_parameters(folder: Path) -> set[str]:
    """Return the files below an environment's folder that Kedro takes for parameters: by their name or a folder's."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".yml", ".yaml", ".json"))
    return {path.as_posix() for path in files if any(part.startswith("parameters") for part in path.parts)}


def _same_graph(name: str, built: Benchmark, merged: Benchmark, looks: bool) -> None:
    """Raise Refused if an environment or --params change what the graph or dvc.yaml were built from.

    They would not see the change. looks: --params are given, so DVC did not start this run, and may watch other code.
    """
    was, now = built.graph(), merged.graph()
    if not looks:
        was |= {"modules": built.modules(), "files": built.files()}
        now |= {"modules": merged.modules(), "files": merged.files()}
    if changed := [key for key in was if was[key] != now[key]]:
        raise Refused(
            f"parameters of {name}: {', '.join(changed)} decide the graph, or what DVC watches, which are built from "
            f"conf/base/parameters/{name}.yml: change them there, not by --params or an environment"
        )


class MissingInputs:
    """Say what is missing, and what makes it, before anything runs."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: Any) -> None:
        """Raise Refused if a file that the pipeline reads, and does not make, is not there."""
        for name in sorted(pipeline.inputs()):
            dataset = catalog.get(name)
            reader = next(node for node in pipeline.nodes if name in node.inputs)
            benchmark = str(reader.namespace).split(".")[0]
            if dataset is None:
                raise Refused(
                    f"{name}, which {reader.name} reads, is kept in no file, and this command leaves out the node that "
                    f"makes it. Choose by tags: kedro run --pipeline={benchmark} --tags=evaluate,report,gate"
                )
            if getattr(dataset, "must_exist", False) and not dataset.path.exists():
                raise Refused(
                    f"{name} is missing, which {reader.name} reads: it was not made yet, or a stage before it failed. "
                    f"Run the stages before it too: kedro run --pipeline={benchmark}, or dvc repro ({dataset.path})"
                )


class DistinctPaths:
    """Refuse names of benchmarks, runs and seeds with which one dataset would overwrite or delete another one."""

    loader: Any

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Keep the loader of parameters: in those that `after_catalog_created` gets, Kedro made objects of blocks."""
        self.loader = context.config_loader

    @hook_impl
    def after_catalog_created(self, conf_catalog: Mapping[str, Any]) -> None:
        """Raise Refused if a dataset of a requested benchmark is the file or folder of another one, or lies in it.

        All datasets of the benchmark count, also those of stages that this command leaves out: another one runs them.
        """
        paths = dataset_paths(conf_catalog, cells_of(self.loader["parameters"]))
        if found := shared_paths(paths):
            inner, outer = found[0]
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise Refused(
                f"{inner}{more} would lie in {paths[outer]}, the place of {outer}, and one would delete the other: "
                "give the run, seed or benchmark that is called like a part of this path another name"
            )


def cells_of(benchmarks: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what fills the catalog's patterns for each run and seed; benchmarks: name -> parameters."""
    return [
        {"source": block["source"]["name"], "benchmark": name, "run": run, "seed": seed}
        for name, block in benchmarks.items()
        for run, row in block["runs"].items()
        for seed in row["seeds"] or block["seeds"]
    ]


def dataset_paths(catalog: Mapping[str, Any], cells: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return dataset -> path of all datasets of the cells. catalog: Kedro's, patterns and entries of a full name.

    Kedro's own lookup takes 1 ms a dataset.
    """
    own = {name: entry for name, entry in catalog.items() if KEPT not in (entry.get("metadata") or {})}
    placed = {name: entry["filepath"] for name, entry in own.items() if "filepath" in entry}
    known = {field for cell in cells for field in cell}
    fields = {name: [field for _, field, _, _ in Formatter().parse(name) if field] for name in placed}
    patterns = [name for name, used in fields.items() if used and known.issuperset(used)]
    paths = {name.format_map(cell): placed[name].format_map(cell) for name in patterns for cell in cells}
    return paths | {name: placed[name] for name, used in fields.items() if not used}


def shared_paths(paths: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the pairs of datasets of which the first one's path is the second one's, or lies in it."""
    pairs, outer, around = [], "", "\0"  # no path begins with a zero byte
    # with a slash at its end, a folder is followed by all that lies in it
    for path, name in sorted((f"{os.path.normpath(path)}/", name) for name, path in paths.items()):
        if path.startswith(around):
            pairs.append((name, outer))
        else:
            outer, around = name, path
    return pairs


class KnownRunners:
    """Refuse runners under which the same seeds train other weights."""

    @hook_impl
    def before_pipeline_run(self, run_params: Mapping[str, Any]) -> None:
        """Raise Refused unless each node has the global random streams of torch and NumPy to itself while it runs."""
        # Kedro states the runner as text, "<kedro.runner.thread_runner.ThreadRunner object at ...>"; None: the default
        runner = str(run_params["runner"]).partition(" ")[0].rpartition(".")[2]
        if runner not in (*RUNNERS, "None"):
            raise Refused(
                f"--runner={runner}: cells that are trained at the same time in one process share its random numbers, "
                f"so the same seeds give other weights; runners: {', '.join(RUNNERS)}"
            )


class StaleOutputs:
    """Delete the verdict that old outputs led to before all nodes, and other outputs before the node that makes them.

    A run that fails then leaves no verdict and no report, rather than those of the last run that did not. Data are made
    anew as a whole: a new manifest beside old images would be of no use. A trained or an exported model is not
    deleted, but replaced, since it may have taken hours, and the node may refuse to run.
    """

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: Any) -> None:
        """Delete the verdicts and reports that the run makes, or that will not be of what it makes."""
        benchmarks = {str(node.namespace).split(".")[0] for node in pipeline.nodes if not node.tags & KEEP_THE_VERDICT}
        stale = {f"{benchmark}.{name}" for benchmark in benchmarks for name in ("verdict", "report")}
        for name in sorted(stale - pipeline.inputs()):
            _delete(catalog.get(name))

    @hook_impl
    def before_node_run(self, node: Node, catalog: Any) -> None:
        """Delete the files and folders that the node is about to write, unless they stay until they are replaced."""
        for name in () if node.tags & REPLACE_WHEN_WHOLE else node.outputs:
            _delete(catalog.get(name))
            # what the data are is written last: a run that is killed before leaves none, rather than that of the old
            benchmark, _, kind = name.partition(".")
            if kind == "manifest":
                _delete(catalog.get(f"{benchmark}.data_identity"))


def _delete(dataset: Any) -> None:
    """Delete a dataset's file or folder, if it has one."""
    path = getattr(dataset, "path", None)
    if path is not None and path.is_dir():
        shutil.rmtree(path)
    elif path is not None:
        path.unlink(missing_ok=True)


class Fresh:
    """With `kedro run --fresh`, train every cell again: hide what it has written before, delete where it stopped."""

    @hook_impl
    def before_node_run(self, node: Node, catalog: Any) -> dict[str, Any]:
        """Return None for each input that the node may keep."""
        asked = os.environ.get(FRESH) == "1"
        for name in _scratch_of(node) if asked else ():
            discard(catalog.get(name).path)
        return {name: None for name in node.inputs if asked and KEPT in (_metadata(catalog.get(name)) or {})}


def _metadata(dataset: Any) -> dict[str, Any] | None:
    return getattr(dataset, "metadata", None)


SAID = frozenset({"export", "evaluate", "report"})  # stages that may take minutes and would say nothing


class CellsOfARun:
    """Say which cell of how many is trained, where a command trains several."""

    def __init__(self) -> None:
        self.cells: list[str] = []

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Find the cells in the order in which they are trained."""
        self.cells = [str(node.namespace) for node in pipeline.nodes if _scratch_of(node)]

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """Say the number of the cell that is trained, and what is done with a trained one."""
        if len(self.cells) > 1 and _scratch_of(node):
            log.info("cell %d of %d: %s", self.cells.index(str(node.namespace)) + 1, len(self.cells), node.namespace)
        for stage in sorted(SAID & node.tags):
            log.info("%s: %s", node.namespace, stage)


class FinishedScratch:
    """Delete what a training kept to go on with, when all of its outputs are on disk: a kill before loses nothing."""

    def __init__(self) -> None:
        self.unsaved: dict[str, set[str]] = {}
        self.folders: dict[str, Path] = {}

    @hook_impl
    def before_node_run(self, node: Node, catalog: Any) -> None:
        """Keep the folder: the hook after a save gets no catalog."""
        for name in _scratch_of(node):
            self.unsaved[node.name], self.folders[node.name] = set(node.outputs), catalog.get(name).path

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Delete after the node's last output."""
        if node.name in self.unsaved:
            self.unsaved[node.name].discard(dataset_name)
            if not self.unsaved[node.name]:
                discard(self.folders[node.name])


def _scratch_of(node: Node) -> list[str]:
    """Return the datasets that hold the resume points of a node, one for a node that trains, none for others."""
    return [name for name in node.inputs if name.rpartition(".")[2] == "scratch"]
