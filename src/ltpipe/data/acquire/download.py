"""Download files: continue after a lost connection, verify checksums, and let only one process download a file.

A file gets its final name only after its checksum has been verified. Until then it is called `.<name>.part`, and the
next attempt, also one of a later process, asks the server for the remaining bytes only. If the server cannot continue
a download, it sends the entire file again.
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

# seconds to wait before the second, third, ... attempt
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
# bytes per write: at most this many are lost when a connection breaks
CHUNK = 1 << 16
# seconds: to connect, and between two reads
TIMEOUT = (10, 60)
# HTTP statuses after which another attempt may succeed; 416: our part is longer than the file, and is deleted
TEMPORARY_STATUSES = (408, 416, 425, 429, 500, 502, 503, 504)

log = logging.getLogger("ltpipe.data")


class Remote(NamedTuple):
    """A file on a server.

    checksum: md5:<hex>, sha256:<hex>, or git:<hex>, the blob id of a file in a git repository.
    size: bytes, or None if unknown.
    """

    url: str
    checksum: str
    size: int | None = None

    @property
    def name(self) -> str:
        """Return the file's name: the last part of the address."""
        return self.url.rsplit("/", 1)[-1]

    def checksum_of(self, path: Path) -> str:
        """Return the checksum of the file at `path`, of the same kind and in the same form as `checksum`."""
        import pooch  # type: ignore[import-untyped]

        kind = self.checksum.partition(":")[0]
        return f"{kind}:{_git_blob_id(path) if kind == 'git' else pooch.file_hash(str(path), alg=kind)}"

    def matches(self, path: Path) -> bool:
        """Tell whether `path` is a file of the expected size (if known) and checksum."""
        # compare sizes first: it costs nothing, while the checksum reads the file
        if not path.is_file() or (self.size is not None and path.stat().st_size != self.size):
            return False
        return self.checksum_of(path) == self.checksum


def _git_blob_id(path: Path) -> str:
    """Return git's id of the file's content: SHA-1 of "blob <size>", a zero byte, and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch_file(remote: Remote, folder: Path, pauses: Sequence[float] = PAUSES) -> Path:
    """Return the file's path in `folder`; download it unless it is there with the right checksum.

    pauses: seconds to wait before each further attempt.
    Raises Refused if the download fails; the message says what, from where, why, and where to put the file by hand.
    """
    path = folder / remote.name
    if remote.matches(path):
        return path
    try:
        with _lock(path):
            # check again: another process may have completed the file while this one waited
            if not remote.matches(path):
                _download(remote, path, pauses)
    except OSError as error:
        raise Refused(f"cannot write {path}: {error}; the file is {remote.url}") from None
    return path


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the file lock of `path`, so that one process downloads it; the others wait."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process, which fetches %s", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(remote: Remote, path: Path, pauses: Sequence[float]) -> None:
    """Download to `.<name>.part`, then rename; a wrong file at `path` stays there until the right one is complete."""
    if path.exists():
        log.warning("%s is another file: checksum %s, expected %s", path, remote.checksum_of(path), remote.checksum)
    part = path.with_name(f".{path.name}.part")
    _check_disk_space(remote, part)
    log.info("fetching %s", remote.url)
    _download_with_retries(remote, part, path, pauses)
    part.replace(path)


def _check_disk_space(remote: Remote, part: Path) -> None:
    """Raise Refused if the remaining bytes do not fit on the disk; a file of unknown size counts as 0 bytes."""
    missing, free = (remote.size or 0) - _size(part), shutil.disk_usage(part.parent).free
    if missing > free:
        raise Refused(
            f"not enough disk space for {remote.name} in {part.parent}: {missing:,} bytes to fetch, {free:,} free"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download_with_retries(remote: Remote, part: Path, path: Path, pauses: Sequence[float]) -> None:
    """Try until `part` is the file. Raises Refused after a permanent error or when no pause is left.

    An attempt that gets further than all attempts before it resets the pauses: a large file may arrive over a bad
    connection, as long as it makes progress.
    """
    remaining, longest = list(pauses), _size(part)
    while True:
        permanent, reason = _attempt(remote, part)
        if not reason:
            return
        if _size(part) > longest:
            remaining, longest = list(pauses), _size(part)
        if permanent or not remaining:
            raise _give_up(remote, part, path, reason)
        log.warning("%s: %s; %d bytes so far, trying again", remote.name, reason, _size(part))
        time.sleep(remaining.pop(0))


def _give_up(remote: Remote, part: Path, path: Path, reason: str) -> Refused:
    """Return the error; delete an empty part."""
    if not _size(part):
        part.unlink(missing_ok=True)
    size = "" if remote.size is None else f" ({remote.size:,} bytes)"
    return Refused(
        f"cannot fetch {remote.name}{size}: {reason}\n"
        f"  from {remote.url}\n"
        f"  without a network: put the file at {path}; it is used if its checksum is {remote.checksum}"
    )


def _attempt(remote: Remote, part: Path) -> tuple[bool, str]:
    """Download what `part` lacks. Returns (whether another attempt is useless, the error or "")."""
    import requests

    size = _size(part)
    try:
        # a process that was killed before the rename leaves a complete part
        if not remote.matches(part):
            _append_rest(remote, part, size)
    except requests.RequestException as error:
        return _explain_error(error, part)
    return (False, "") if remote.matches(part) else _reject_content(remote, part, continued=size > 0)


def _explain_error(error: Any, part: Path) -> tuple[bool, str]:
    """Return (whether another attempt is useless, the error's text); delete a part that is longer than the file."""
    from requests.exceptions import TooManyRedirects

    status = error.response.status_code if error.response is not None else None
    if status == 416:
        part.unlink(missing_ok=True)
    # without a status the connection failed, which may pass; a malformed address (a ValueError) stays malformed
    temporary = status is None or status in TEMPORARY_STATUSES
    return not temporary or isinstance(error, ValueError | TooManyRedirects), str(error)


def _reject_content(remote: Remote, part: Path, continued: bool) -> tuple[bool, str]:
    """Return (whether another attempt is useless, what is wrong with `part`, which the server sent without an error).

    A part that is too short is kept and continued. A wrong part is deleted: if it was continued, its beginning may be
    of another file, and the next attempt starts anew; if it came in one piece, the server has another file.
    """
    size, checksum = _size(part), remote.checksum_of(part)
    if remote.size is not None and size < remote.size:
        return False, f"the server sent {size:,} of {remote.size:,} bytes"
    part.unlink()
    return not continued, f"the server sent a different file: {size:,} bytes, {checksum} instead of {remote.checksum}"


def _append_rest(remote: Remote, part: Path, start: int) -> None:
    """Append to `part` the server's bytes from `start` on; begin at 0 if the server sends the entire file."""
    from pooch import HTTPDownloader

    # identity: a compressed answer would have other byte positions than the file
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with part.open("ab") as file:

        def empty_if_entire(response: Any, *_: Any, **__: Any) -> None:
            if response.status_code == 200:  # the server ignores Range; it would answer 206 otherwise
                file.truncate(0)

        fetch = HTTPDownloader(
            progressbar=sys.stderr.isatty(),
            chunk_size=CHUNK,
            timeout=TIMEOUT,
            headers=headers,
            hooks={"response": empty_if_entire},
        )
        fetch(remote.url, file, None)
        # write to the disk before the rename: after a power failure the final name must not hold half a file
        file.flush()
        os.fsync(file.fileno())
