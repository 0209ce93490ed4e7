"""Stage `fetch`: the index of a source's images, and the notice of their licence."""

import logging
from pathlib import Path

from ltpipe.data.acquire.notice import keep_notice
from ltpipe.data.source import Source
from ltpipe.storage.table import Table

# image       unique name
# source      the original image that it was made from
# file        path below the raw folder, or row of the source's own array
# label       class index, from 0
# class_name
# attribute   -1: unknown
# official    the split of the source's authors: train, val, test or ""
COLUMNS = ("image", "source", "file", "label", "class_name", "attribute", "official")

log = logging.getLogger("ltpipe.data")


def fetch(source: Source, raw: Path) -> tuple[Table, str]:
    """Return the index of the source's images (columns: COLUMNS) and the notice of their licence.

    Files that have to be downloaded go into the folder `raw`.
    """
    module = source.module()
    index: Table = module.build_index(source.config(), raw)
    if list(index.columns) != list(COLUMNS):
        raise TypeError(f"{module.__name__}.build_index: columns {list(index.columns)}, not {list(COLUMNS)}")
    log.info("%s: %d images of %d classes", source.name, len(index), index["label"].nunique())
    keep_notice(module.NOTICE, source.name, raw)
    return index, module.NOTICE
