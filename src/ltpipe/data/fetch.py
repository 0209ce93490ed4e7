"""Stage `fetch`: the index of a source's images, and the notice of their licence."""

import logging
from pathlib import Path

from ltpipe.config.spec import Refused
from ltpipe.data.acquire.notice import keep_notice
from ltpipe.data.source import Source
from ltpipe.storage.table import Table

# image       unique name
# source      the original image that it was made from
# file        path below the raw folder; or, as a text of digits only, the row of the source's own array
# label       class index: integers 0, 1, ... without gaps
# class_name
# attribute   integers 0, 1, ... without gaps; -1: unknown
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
    _check_index(index, source.name)
    log.info("%s: %d images of %d classes", source.name, len(index), index["label"].nunique())
    keep_notice(module.NOTICE, source.name, raw)
    return index, module.NOTICE


def _check_index(index: Table, name: str) -> None:
    """Raise Refused if a column has another type than COLUMNS says: later stages would fail on it, or be wrong."""
    texts = ("image", "source", "file")
    problems = [f"{c} is not text" for c in texts if not all(isinstance(value, str) for value in index[c])]
    integers = ("label", "attribute")
    problems += [f"{c} is {index[c].dtype}, not integers" for c in integers if index[c].dtype.kind != "i"]
    problems += [
        f"{c} has {index[c].min()}" for c, least in (("label", 0), ("attribute", -1)) if index[c].min() < least
    ]
    if problems:
        raise Refused(f"source {name}: its index is wrong: {'; '.join(problems)}")
