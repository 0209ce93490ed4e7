"""Files from the network: continued where they broke off, checked before anybody sees them, fetched by one process.

A file has its own name only once its checksum is right. Until then it is `.<name>.part`, and the next attempt (also a
later process's) asks the server for the rest of it; a server that cannot continue sends the whole file again.
"""

import hashlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ltpipe.config.spec import Refused

# seconds before the second, third, ... attempt
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
# what is lost at most when a connection breaks
CHUNK = 1 << 16
# connect, read
TIMEOUT = (10, 60)
# answers that may be another at the next attempt; 416: our part is longer than the file
PASSING = (408, 416, 425, 429, 500, 502, 503, 504)

log = logging.getLogger("ltpipe.data")


class Remote(NamedTuple):
    """A file on a server.

    checksum: md5:<hex>, sha256:<hex>, or git:<hex>, the blob id of a file that a git repository holds.
    size: bytes, where known.
    """

    url: str
    checksum: str
    size: int | None = None

    @property
    def name(self) -> str:
        """The file's own name: the last part of the address."""
        return self.url.rsplit("/", 1)[-1]

    def found(self, path: Path) -> str:
        """The checksum of the file at `path`, as `checksum` is written."""
        import pooch  # type: ignore[import-untyped]

        kind = self.checksum.partition(":")[0]
        return f"{kind}:{_blob(path) if kind == 'git' else pooch.file_hash(str(path), alg=kind)}"

    def is_at(self, path: Path) -> bool:
        """Whether `path` is this file, to the byte."""
        if not path.is_file() or (self.size is not None and path.stat().st_size != self.size):
            return False
        return self.found(path) == self.checksum


def _blob(path: Path) -> str:
    """Git's id of the file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def get(remote: Remote, folder: Path, waits: Sequence[float] = WAITS) -> Path:
    """The file's path in `folder`; fetched unless it is there with the right checksum.

    Raises Refused with what, where from, why, and where to put the file by hand.
    """
    path = folder / remote.name
    if remote.is_at(path):
        return path
    try:
        with _alone(path):
            if not remote.is_at(path):
                _replace(remote, path, waits)
    except OSError as error:
        raise Refused(f"cannot write {path}: {error}; the file is {remote.url}") from None
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process fetches %s: waiting for it", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _replace(remote: Remote, path: Path, waits: Sequence[float]) -> None:
    if path.exists():
        log.warning("%s is not the file expected (%s, found %s)", path, remote.checksum, remote.found(path))
    part = path.with_name(f".{path.name}.part")
    _room(remote, part)
    log.info("fetching %s", remote.url)
    _complete(remote, part, path, waits)
    part.replace(path)


def _room(remote: Remote, part: Path) -> None:
    wanted, free = (remote.size or 0) - _bytes(part), shutil.disk_usage(part.parent).free
    if wanted > free:
        raise Refused(f"no room for {remote.name} in {part.parent}: {wanted:,} bytes to fetch, {free:,} free")


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _complete(remote: Remote, part: Path, path: Path, waits: Sequence[float]) -> None:
    """Attempts until `part` is the file; each one that gets further than any before it earns the same patience anew."""
    pauses, best = list(waits), _bytes(part)
    while True:
        final, reason = _attempt(remote, part)
        if not reason:
            return
        if _bytes(part) > best:
            pauses, best = list(waits), _bytes(part)
        if final or not pauses:
            raise _given_up(remote, part, path, reason)
        log.warning("%s: %s; %d bytes so far, trying again", remote.name, reason, _bytes(part))
        time.sleep(pauses.pop(0))


def _given_up(remote: Remote, part: Path, path: Path, reason: str) -> Refused:
    if not _bytes(part):
        part.unlink(missing_ok=True)
    return Refused(
        f"cannot fetch {remote.name}{_size(remote)}: {reason}\n"
        f"  from {remote.url}\n"
        f"  without a network: put the file at {path}; it is used if its checksum is {remote.checksum}"
    )


def _size(remote: Remote) -> str:
    return "" if remote.size is None else f" ({remote.size:,} bytes)"


def _attempt(remote: Remote, part: Path) -> tuple[bool, str]:
    """Fetch the rest of `part`. Returns (whether another attempt is useless, what went wrong or "")."""
    import requests

    before = _bytes(part)
    try:
        if not remote.is_at(part):
            _stream(remote, part, before)
    except requests.RequestException as error:
        return _failed(error, part)
    return (False, "") if remote.is_at(part) else _wrong(remote, part, continued=before > 0)


def _failed(error: Any, part: Path) -> tuple[bool, str]:
    from requests.exceptions import TooManyRedirects

    status = error.response.status_code if error.response is not None else None
    if status == 416:
        part.unlink(missing_ok=True)
    passing = status is None or status in PASSING
    return not passing or isinstance(error, ValueError | TooManyRedirects), str(error)


def _wrong(remote: Remote, part: Path, continued: bool) -> tuple[bool, str]:
    """A short file is continued; a continued file that is wrong is fetched anew; a whole one that is wrong is final."""
    size, found = _bytes(part), remote.found(part)
    if remote.size is not None and size < remote.size:
        return False, f"the server sent {size:,} of {remote.size:,} bytes"
    part.unlink()
    return not continued, f"the server sent another file: {size:,} bytes, {found} instead of {remote.checksum}"


def _stream(remote: Remote, part: Path, have: int) -> None:
    """Append to `part` what the server has from byte `have` on; start again where it sends the whole."""
    from pooch import HTTPDownloader

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with part.open("ab") as file:

        def begin(response: Any, *_: Any, **__: Any) -> None:
            if response.status_code == 200:
                file.truncate(0)

        fetch = HTTPDownloader(
            progressbar=sys.stderr.isatty(),
            chunk_size=CHUNK,
            timeout=TIMEOUT,
            headers=headers,
            hooks={"response": begin},
        )
        fetch(remote.url, file, None)
        file.flush()
        os.fsync(file.fileno())
