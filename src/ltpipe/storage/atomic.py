"""Atomic writes: a file has its old content or all of its new content, never a part of it."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`; create missing folders, and leave no temporary file behind if the write fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder, because a rename is atomic only inside one file system
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut after the rename could leave an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
