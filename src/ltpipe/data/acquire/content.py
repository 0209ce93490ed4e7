"""What the files of a user's folder contain: a digest of each, read again only if its size or a time has changed."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ltpipe.storage.atomic import write_atomically

# files that a thread takes at once
CHUNK = 64

log = logging.getLogger("ltpipe.data")

# Size in bytes, times of modification and of change in ns, inode, digest. A program can set the time of modification
# back, not the others, and a renamed file has another inode under the old name.
Known = dict[str, tuple[int, int, int, int, str]]


def content_digests(folder: Path, paths: Sequence[str], raw: Path) -> list[str]:
    """Return 16 hex digits of the SHA-256 of each file below `folder`, in the order of `paths`.

    raw: folder of the cache, a JSON file for each `folder`. A file whose size and times are those of the cache is not
    read again.
    """
    cache = raw / f".digests-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"
    before, now = _load(cache), Known()

    def look(path: str) -> None:
        status = os.stat(f"{folder}/{path}")  # noqa: PTH116 - a million Path objects would cost seconds
        state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known = before.get(path)
        now[path] = (*state, known[4] if known and known[:4] == state else _digest(f"{folder}/{path}"))

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(look, paths, chunksize=CHUNK):
            pass
    if changed := sum(before.get(path) != entry for path, entry in now.items()):
        log.info("%s: read the content of %d of %d files", folder, changed, len(now))
        _save(cache, before | now)  # another caller may ask for other files
    return [now[path][4] for path in paths]


def _digest(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _load(cache: Path) -> Known:
    """Return the cache's entries; none if there is no cache or it cannot be read: then every file is read again."""
    try:
        entries = json.loads(cache.read_bytes()).items()
        return {path: (size, time, change, inode, digest) for path, (size, time, change, inode, digest) in entries}
    except (OSError, ValueError, AttributeError, LookupError, TypeError):
        return {}


def _save(cache: Path, known: Known) -> None:
    try:
        write_atomically(cache, json.dumps(known).encode())
    except OSError as error:
        log.warning("%s cannot be written (%s): every file will be read again", cache, error)
