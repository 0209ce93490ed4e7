"""Stage `split`: draw a manifest, validate it, and admit it only if every expectation holds."""

import logging
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from ltpipe.data.fetch import Images, Source
from ltpipe.data.manifest import COLUMNS
from ltpipe.data.tables import Table
from ltpipe.specs import Refused, Spec, named

PACKAGE = "ltpipe.data.splits"

log = logging.getLogger("ltpipe.data")


class Split(Spec):
    """How to draw the manifest: `kind` is a module of ltpipe.data.splits, `options` its Config block."""

    kind: str
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("kind")
    @classmethod
    def _exists(cls, kind: str) -> str:
        named(PACKAGE, kind)
        return kind

    @model_validator(mode="after")
    def _options(self) -> "Split":
        self.config()
        return self

    def config(self) -> Spec:
        """The options as the kind's own Config block."""
        config: Spec = named(PACKAGE, self.kind).Config.model_validate(self.options)
        return config

    def modules(self) -> frozenset[str]:
        return frozenset({f"{PACKAGE}.{self.kind}"}) | self.config().modules()

    def files(self) -> frozenset[str]:
        return self.config().files()


def draw(index: Table, source: Source, raw: Path, split: Split) -> Table:
    """A candidate manifest; nobody may use it before `admit`. source, raw: for kinds that look at the images."""
    import numpy as np

    table: Table = named(PACKAGE, split.kind).draw(index, split.config(), Images(source, raw))
    names, rows = np.unique(table["image"].to_numpy(dtype=str), return_inverse=True)
    log.info("split %s: %d rows of %d images", split.kind, len(table), len(names))
    table = table.assign(id=table["split"] + "/" + table["image"], row=rows.astype(np.int64))
    return table.sort_values(["split", "label", "image"], ignore_index=True)[list(COLUMNS)]


def admit(candidate: Table, validation: dict[str, Any]) -> Table:
    """The candidate as the manifest; raises Refused where an expectation does not hold.

    The message names each failed expectation, how many rows violate it and up to 10 of them.
    """
    failed = [e for e in validation["expectations"] if not e["success"]]
    if failed:
        lines = [f"  {e['name']}: {e['violations']} violations, e.g. {', '.join(e['examples'])}" for e in failed]
        raise Refused("the manifest violates its expectations, none is written:\n" + "\n".join(lines))
    return candidate
