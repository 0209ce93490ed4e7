"""The licence of a source's images: kept beside them, said once."""

import logging
from pathlib import Path

from ltpipe.storage.atomic import write

NAME = "NOTICE"

log = logging.getLogger("ltpipe.data")


def keep_notice(notice: str, source: str, raw: Path) -> None:
    """Write raw/NOTICE and say it, where it is new or another one; each time where `raw` cannot be written."""
    path = raw / NAME
    try:
        if path.is_file() and path.read_bytes() == notice.encode():
            return
        write(path, notice.encode())
    except OSError:
        log.info("%s cannot be written", path)
    log.info("%s: %s", source, notice.strip())
