"""Provenance: which modules a result depends on (the import closure of its code), and a hash of their source files."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import grimp


@cache
def _import_graph() -> grimp.ImportGraph:
    # imports under TYPE_CHECKING do nothing at run time; the default cache would be written into the working directory
    return grimp.build_graph("ltpipe", exclude_type_checking_imports=True, cache_dir=None)


def import_closure(modules: Iterable[str]) -> list[str]:
    """Return `modules` and every ltpipe module that they import, directly or indirectly, sorted.

    An import of `ltpipe.a.b` also runs `ltpipe/a/__init__.py`, so the parent packages are part of the closure.
    """
    graph, closure, queue = _import_graph(), set(), list(modules)
    while queue:
        module = queue.pop()
        if module in closure or not module:  # "" is the parent of a top-level module
            continue
        closure.add(module)
        # A module that was added to a package's __path__ from outside is not in the graph: its imports are unknown.
        if module not in graph.modules:
            continue
        queue += graph.find_modules_directly_imported_by(module)
        queue += [module.rpartition(".")[0]]
    return sorted(closure)


def source_path(module: str) -> Path:
    """Return the path of the file that defines `module`. Raises ModuleNotFoundError if there is none."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source file for module {module!r}")
    return Path(spec.origin)


@cache
def has_code(path: Path) -> bool:
    """Tell whether a module holds more than a docstring."""
    body = ast.parse(path.read_text()).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def code_version(modules: Iterable[str]) -> str:
    """Return the first 12 hex digits of a SHA-256 over the names and sources of the import closure of `modules`.

    It is not a git revision: a commit that changes other code leaves it as it is, and so retrains nothing. Modules that
    hold only a docstring do not count: dvc.yaml leaves them out too, and what it does not see must not make stale.
    """
    digest = hashlib.sha256()
    for module in import_closure(modules):
        if has_code(path := source_path(module)):
            digest.update(module.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
