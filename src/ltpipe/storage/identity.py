"""Identity: what a result was made of. Every result carries it, and every reader compares it with what it asked for.

A file's name says what should be in the file, not what is in it.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ltpipe.config.spec import Refused, Spec
from ltpipe.storage.provenance import code_version


def digest(value: Any) -> str:
    """Return the first 12 hex digits of a SHA-256 over a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def digest_bytes(content: bytes) -> str:
    """Return the first 16 hex digits of a SHA-256 over a file's content."""
    return hashlib.sha256(content).hexdigest()[:16]


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a user's file, in hex. Raises Refused if it cannot be read."""
    try:
        state = path.stat()
        return _digest_as_it_is(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise Refused(f"{path}, a file that the parameters name, cannot be read: {error.strerror}") from None


@lru_cache(maxsize=8)
def _digest_as_it_is(path: Path, size: int, changed: int) -> str:
    """Return the SHA-256 of a file, which is asked for once a cell. size, changed: an edited file is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_blocks(blocks: Mapping[str, Spec | Mapping[str, Any] | None]) -> str:
    """Return `digest` of parameter blocks by name; a block is equal to the mapping of its values."""
    plain = {name: block.model_dump() if isinstance(block, Spec) else block for name, block in blocks.items()}
    return digest(plain)


def made_by(module: str, **blocks: Spec | Mapping[str, Any]) -> str:
    """Return a digest of a module's code, with all that it imports, and of the parameter blocks that it takes."""
    return digest({"code": code_version({module}), "parameters": digest_blocks(blocks)})


def require(what: str, found: Mapping[Any, Any], asked: Mapping[str, Any], remedy: str) -> None:
    """Raise Refused unless `found` has every value of `asked`; the message says what differs and ends with `remedy`.

    what: the result that carries `found`, e.g. "the checkpoint of digits_glt.ce.s0".
    """
    differing = [key for key in asked if found.get(key) != asked[key]]
    if differing:
        said = "; ".join(_difference(key, found.get(key), asked[key]) for key in differing)
        raise Refused(f"{what} is of another state: {said}. {remedy}")


def _difference(key: str, found: Any, asked: Any) -> str:
    """Return what differs; of mappings, the keys that do."""
    if isinstance(found, Mapping) and isinstance(asked, Mapping):
        names = sorted(name for name in {*found, *asked} if found.get(name) != asked.get(name))
        return "; ".join(_difference(f"{key}.{name}", found.get(name), asked.get(name)) for name in names)
    return f"{key} is {found}, not {asked}"
