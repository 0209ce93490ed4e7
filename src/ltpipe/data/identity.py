"""Node `identify`: of what state a manifest and its images are; report, gate and `accept` compare it with theirs."""

from typing import Any

import numpy as np

from ltpipe.config.spec import Spec
from ltpipe.data.checks.validate import Expect
from ltpipe.data.source import Source
from ltpipe.data.split import Split
from ltpipe.storage.identity import digest_blocks
from ltpipe.storage.manifest import data_version
from ltpipe.storage.provenance import code_version
from ltpipe.storage.table import Table

# The stage split runs these. An edit of what comes before them changes its input, or changes nothing.
MODULES = frozenset({__name__, "ltpipe.data.split", "ltpipe.data.pack", "ltpipe.data.checks.validate"})
# the stage runs these only where training reads whole pictures, and where expect.crops is stated
WHOLE, CROPS = "ltpipe.data.originals", "ltpipe.data.crops"


def drawn_by(source: Source, split: Split, expect: Expect, cluster: Spec | None = None) -> dict[str, str]:
    """Return what a manifest must be of: the digest of its parameters, and the version of the code that draws it."""
    blocks = {"source": source, "split": split, "expect": expect, "cluster": cluster}
    return {
        "parameters": digest_blocks(blocks),
        "code": code_version(_modules_of(source, expect) | source.modules() | split.modules()),
    }


def _modules_of(source: Source, expect: Expect) -> frozenset[str]:
    """Return the modules that the stage split runs, but for those of the source and of the split kind."""
    whole = {WHOLE} if source.pictures != "squares" else set()
    return MODULES | whole | ({CROPS} if expect.crops is not None else set())


def identify(
    manifest: Table, images: np.ndarray, source: Source, split: Split, expect: Expect, cluster: Any = None
) -> dict[str, str]:
    """Return `drawn_by`, and the version of the data themselves. images: uint8, N x H x W x 3."""
    return drawn_by(source, split, expect, cluster) | {"data": data_version(manifest, images)}
