"""Stage `split`: draw a manifest, and admit it only if every expectation holds."""

import logging
from typing import Any, ClassVar

from pydantic import Field

from ltpipe.config.shell import typed
from ltpipe.config.spec import MenuItem, Refused
from ltpipe.storage.manifest import COLUMNS
from ltpipe.storage.table import Table

log = logging.getLogger("ltpipe.data")


class Split(MenuItem):
    """How to draw the manifest."""

    menu: ClassVar[str] = "ltpipe.data.splits"
    field: ClassVar[str] = "kind"

    kind: str = Field(description="a module of ltpipe.data.splits")


def draw(index: Table, split: Split) -> Table:
    """Return a candidate manifest; nobody may use it before `admit`."""
    import numpy as np

    table: Table = split.module().draw_manifest(index, split.config())
    names, rows = np.unique(table["image"].to_numpy(dtype=str), return_inverse=True)
    log.info("split %s: %d rows of %d images", split.kind, len(table), len(names))
    table = table.assign(id=table["split"] + "/" + table["image"], row=rows.astype(np.int64))
    return table.sort_values(["split", "label", "image"], ignore_index=True)[list(COLUMNS)]


def admit(candidate: Table, validation: dict[str, Any]) -> Table:
    """Return the candidate as the manifest. Raises Refused if an expectation does not hold.

    The message names each failed expectation, how many rows violate it, and up to 10 of them.
    """
    failed = [e for e in validation["expectations"] if not e["success"]]
    if failed:
        lines = [f"  {e['name']}: {_violations(e['violations'])}, e.g. {', '.join(e['examples'])}" for e in failed]
        lines.append(
            f"If pictures of your own came, went or changed: `{typed('ltpipe init PATH --name NAME')}` says which, and "
            "--update takes them. In a benchmark that init did not write, state the new counts under `expect`"
        )
        raise Refused("the manifest violates its expectations, none is written:\n" + "\n".join(lines))
    return candidate


def _violations(number: int) -> str:
    return f"{number} violation{'s' * (number != 1)}"
