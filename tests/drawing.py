"""Splits of made-up indexes, whose images nobody looks at."""

from pathlib import Path

from ltpipe.data import split
from ltpipe.data.fetch import Source

SOURCE = Source(name="digits", size=16)


def draw(index, block):
    """The manifest that the block draws from the index."""
    return split.draw(index, SOURCE, Path("no folder"), block)
