"""Where predictions go: standard output, or a file that gets its name only when it is whole.

Until then the rows are in OUT.part, and OUT.part.json says after each batch what of OUT.part is valid. A run that was
cut off at any moment is continued from there. parquet, whose end is an index of the whole, is kept as JSON lines first.
"""

import fcntl
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NamedTuple

from ltpipe.config.spec import Refused
from ltpipe.serving.rows import Columns, write_parquet
from ltpipe.storage.atomic import write_atomically
from ltpipe.storage.identity import require

CLOSED = 141  # exit code of a program whose output is closed, as `| head` does it: 128 + SIGPIPE
AGAIN = "begin again without --resume"


class Progress(NamedTuple):
    """What of the images is done. seen: digest of the files looked at. bytes: valid part of OUT.part."""

    files: int = 0
    rows: int = 0
    bytes: int = 0
    seen: str = ""

    def after(self, files: int, rows: int, seen: str) -> "Progress":
        """Return the progress after one more batch."""
        return Progress(self.files + files, self.rows + rows, self.bytes, seen)


class Printed:
    """Rows on standard output, UTF-8 whatever the terminal's encoding. held: none of them before the last."""

    def __init__(self, held: bool) -> None:
        if sys.stdout is None:
            raise Refused("standard output is closed: name a file by --out")
        self.progress = Progress()
        self.held: IO[bytes] | None = TemporaryFile() if held else None  # noqa: SIM115 - it lives as long as this

    def write(self, content: bytes, progress: Progress) -> None:
        """Print the rows of a batch. Raises Refused if that is not possible; ends the program if nobody reads it."""
        if self.held is None:
            _print(content)
        else:
            self._hold(content)
        self.progress = progress

    def _hold(self, content: bytes) -> None:
        assert self.held is not None
        try:
            self.held.write(content)
            self.held.flush()
        except OSError as error:
            raise Refused(f"cannot hold the rows back until the end, as --strict does: {error.strerror}") from None

    def finish(self) -> None:
        """Print what was held back."""
        if self.held:
            self.held.seek(0)
            while block := self.held.read(1 << 20):
                _print(block)
            self.held.close()

    def discard(self) -> None:
        """Forget what was held back."""
        if self.held:
            self.held.close()

    def kept(self) -> str:
        """Return what a run that ends here leaves."""
        return "nothing is kept for later, because there is no --out"


def _print(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except OSError as error:
        _close_output()
        if isinstance(error, BrokenPipeError):
            raise SystemExit(CLOSED) from None
        raise Refused(f"cannot write to standard output: {error.strerror}") from None


def _close_output() -> None:
    """Send what Python still holds of the output nowhere: it would try again at its exit, and complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class Partial:
    """Rows in OUT.part, which becomes OUT."""

    def __init__(self, out: Path, columns: Columns, asked: Mapping[str, Any], resume: bool) -> None:
        """Open OUT.part.

        asked: what decides the rows, JSON values. resume: keep the rows that are there. Raises Refused if nothing can
        be written there, if another process does, or if the rows there are of something else.
        """
        self.out, self.columns, self.asked = out, columns, json.loads(json.dumps(asked))
        self.part, self.note = (out.with_name(out.name + ending) for ending in (".part", ".part.json"))
        if out.is_dir():
            raise Refused(f"cannot write {out}: it is a folder")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self.file = _open_alone(self.part)
            self.progress = self._read_note() if resume and self.note.exists() else Progress()
            if not self.progress.files:
                self.note.unlink(missing_ok=True)
            self.file.truncate(self.progress.bytes)
            self.file.seek(self.progress.bytes)
        except OSError as error:
            raise Refused(f"cannot write {out}: {error.strerror}") from None

    def _read_note(self) -> Progress:
        """Return how far OUT.part is. Raises Refused if it is not of what is asked for now."""
        try:
            note = json.loads(self.note.read_bytes())
            found, progress = note["asked"], Progress(**note["progress"])
        except (ValueError, KeyError, TypeError):
            raise Refused(f"{self.note} is not readable: {AGAIN}") from None
        require(str(self.part), found, self.asked, f"Use the same options, or {AGAIN}")
        if os.fstat(self.file.fileno()).st_size < progress.bytes:
            raise Refused(f"{self.part} is shorter than {self.note} says: {AGAIN}")
        return progress

    def write(self, content: bytes, progress: Progress) -> None:
        """Write the rows of a batch, then that they are there. Raises Refused if that is not possible."""
        try:
            self.file.write(content)
            self.file.flush()
            os.fsync(self.file.fileno())
            progress = progress._replace(bytes=self.progress.bytes + len(content))
            note = {"asked": self.asked, "progress": progress._asdict()}
            write_atomically(self.note, json.dumps(note).encode())
        except OSError as error:
            raise Refused(f"cannot write {self.part}: {error.strerror}; {self.kept()}") from None
        self.progress = progress

    def finish(self) -> None:
        """Give the result its name. Raises Refused if that is not possible; the rows are kept then."""
        try:
            if self.out.suffix.lower() == ".parquet":
                self._write_parquet()
                self.part.unlink()
            else:
                self.part.replace(self.out)
            self.note.unlink(missing_ok=True)
            self.file.close()  # only now may another process write there
        except OSError as error:
            raise Refused(f"cannot write {self.out}: {error.strerror or error}; {self.kept()}") from None

    def _write_parquet(self) -> None:
        temporary = self.out.with_name(f".{self.out.name}.{os.getpid()}.tmp")
        try:
            write_parquet(self.part, self.columns, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(self.out)
        finally:
            temporary.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what was written; an older result stays."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        with suppress(OSError):  # on a full disk, closing writes once more what could not be written
            self.file.close()

    def kept(self) -> str:
        """Return what a run that ends here leaves; if that is nothing, no file is left."""
        if not self.progress.files:
            self.discard()
            return "nothing is kept"
        return f"{self.progress.files} files are kept in {self.part}: the same command with --resume goes on"


def _open_alone(part: Path) -> IO[bytes]:
    """Open a file to read and write, as it is. Raises Refused if another process has it open by this function."""
    file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # the other process may just have renamed it to its result
        if part.stat().st_ino != os.fstat(file.fileno()).st_ino:
            raise FileNotFoundError
    except (BlockingIOError, FileNotFoundError):
        file.close()
        raise Refused(f"another process writes {part}: wait for it, or name another --out") from None
    return file
