"""The licence of a source's images: kept beside them, and logged once."""

import logging
from pathlib import Path

from ltpipe.storage.atomic import write_atomically

NAME = "NOTICE"

log = logging.getLogger("ltpipe.data")


def keep_notice(notice: str, source: str, raw: Path) -> None:
    """Write raw/NOTICE and log the notice, if the file is missing or has other content.

    If `raw` cannot be written, the notice is logged on every call.
    """
    path = raw / NAME
    try:
        if path.is_file() and path.read_bytes() == notice.encode():
            return
        write_atomically(path, notice.encode())
    except OSError:
        log.info("%s cannot be written", path)
    log.info("%s: %s", source, notice.strip())
