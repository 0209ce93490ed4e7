"""Files that are whole or absent: a temporary name in the same folder, fsync, rename."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """`content` at `path`: a temporary name beside it, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
