"""`ltpipe generate`: write every file that is generated from the code and the benchmarks.

ltpipe generate                         dvc.yaml of the embedded benchmark and of every benchmark that has one in
                                        pipelines/dvc/, and the generated pages of docs/
ltpipe generate --check                 fails if one of them is not what would be written, and names it
ltpipe generate imagenet_glt            pipelines/dvc/imagenet_glt/dvc.yaml
ltpipe generate --show cifar100_lt_10   prints the whole benchmark: defaults, references and `like` filled in
"""

import sys
from pathlib import Path

import click

from ltpipe.benchmark import load
from ltpipe.config.parameters import benchmark_names, whole
from ltpipe.config.spec import Refused
from ltpipe.pipeline_registry import DEFAULT, project_root
from ltpipe.storage.atomic import write_atomically


def generated(root: Path) -> dict[Path, str]:
    """Return the content of every generated file that is checked in."""
    import yaml

    from ltpipe.pages import benchmarks, dvc_yaml, graph, methods, options, results

    others = sorted(path.parent.name for path in (root / "pipelines/dvc").glob("*/dvc.yaml"))
    ledgers = {name: dvc_yaml.text(name, root) for name in (DEFAULT, *others)}
    return {
        **{dvc_yaml.place(name, root): text for name, text in ledgers.items()},
        root / "docs/benchmarks.md": benchmarks.render_benchmarks(root),
        root / "docs/graph.md": graph.render_graph(yaml.safe_load(ledgers[DEFAULT])["stages"]),
        root / "docs/methods.md": methods.render_methods(root),
        root / "docs/options.md": options.render_options(),
        root / "docs/results.md": results.render_results(root),
    }


def show(name: str, root: Path) -> str:
    """Return a whole benchmark as YAML. Raises Refused for an unknown name."""
    import yaml

    if name not in (known := benchmark_names(root / "conf/base")):
        raise Refused(f"no benchmark {name!r}; benchmarks: {', '.join(known)}")
    spec = load(root / "conf/base", [name])[name]
    content = {name: whole(spec.model_dump())}
    return yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


@click.command("generate")
@click.argument("benchmarks", nargs=-1)
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is not what would be written.")
@click.option("--show", "shown", metavar="BENCHMARK", help="Print the whole benchmark, defaults and `like` filled in.")
def command(benchmarks: tuple[str, ...], check: bool, shown: str | None) -> None:
    """Write every generated file; with BENCHMARKS, the dvc.yaml of each of them instead."""
    root = project_root()
    if shown is not None and (benchmarks or check):
        raise Refused("--show prints one benchmark and writes nothing: leave out BENCHMARKS and --check")
    if shown is not None:
        sys.stdout.write(show(shown, root))
        return
    from ltpipe.pages import dvc_yaml

    files = {dvc_yaml.place(name, root): dvc_yaml.text(name, root) for name in benchmarks} or generated(root)
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if check and stale:
        names = ", ".join(path.relative_to(root).as_posix() for path in stale)
        raise Refused(f"not what the code and the benchmarks say: {names}; run: ltpipe generate")
    for path in [] if check else stale:
        write_atomically(path, files[path].encode())
    for path in files:
        state = "wrote" if path in stale else "unchanged"
        sys.stdout.write(f"{path.relative_to(root).as_posix()}: {state}\n")


if __name__ == "__main__":
    command()
