"""Worst attribute: the lowest recall, as mean over classes, on the images of one attribute (a camera, a site).

An attribute is a name if the images have names for theirs, else a rank inside the class. Without attributes it equals
`recall`. Koh et al. (WILDS, ICML 2021) report the worst region in this way, by accuracy.
"""

from ltpipe.evaluation.metrics import ALL, attribute_members
from ltpipe.evaluation.metrics.recall import recalls
from ltpipe.storage.table import Table

HIGHER_IS_BETTER = True
PARTS = (ALL,)


def measure(rows: Table, classes: int) -> dict[str, float]:
    """Return the recall on the images of the worst attribute; images of unknown attribute belong to none."""
    y, p = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    found = [recalls(y[member], p[member]).mean() for _, member in attribute_members(rows)]
    return {ALL: 100 * float(min(found, default=recalls(y, p).mean()))}
