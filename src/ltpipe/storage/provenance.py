"""Which code a result depends on: the import closure of some modules, and a hash of its source files."""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import grimp


@cache
def _graph() -> grimp.ImportGraph:
    # imports under TYPE_CHECKING do nothing at run time; the default cache would be written into the working directory
    return grimp.build_graph("ltpipe", exclude_type_checking_imports=True, cache_dir=None)


def closure(modules: Iterable[str]) -> list[str]:
    """`modules` and every ltpipe module that they import, directly or not, sorted.

    An import of `ltpipe.a.b` also runs `ltpipe/a/__init__.py`, so parents are part of the closure.
    """
    graph, found, queue = _graph(), set(), list(modules)
    while queue:
        module = queue.pop()
        if module in found or not module:
            continue
        found.add(module)
        if module not in graph.modules:  # a module put on a package's path from outside: itself, without its imports
            continue
        queue += graph.find_modules_directly_imported_by(module)
        queue += [module.rpartition(".")[0]]
    return sorted(found)


def source(module: str) -> Path:
    """The file that `module` is read from."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source file for module {module!r}")
    return Path(spec.origin)


def code_version(modules: Iterable[str]) -> str:
    """First 12 hex digits of the SHA-256 over the names and sources of the closure of `modules`.

    Not a git revision: equal code gives an equal version, so that a commit elsewhere retrains nothing.
    """
    digest = hashlib.sha256()
    for module in closure(modules):
        digest.update(module.encode() + b"\0" + source(module).read_bytes() + b"\0")
    return digest.hexdigest()[:12]
