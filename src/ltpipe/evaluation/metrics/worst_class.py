"""Worst class: the lowest recall (correct images / images) of a class that has test images.

Du and Wu, "No one left behind: improving the worst categories in long-tailed learning", CVPR 2023.
"""

from ltpipe.evaluation.metrics import ALL
from ltpipe.evaluation.metrics.recall import recalls
from ltpipe.storage.table import Table

HIGHER_IS_BETTER = True
PARTS = (ALL,)


def measure(rows: Table, classes: int) -> dict[str, float]:
    """Return the recall of the worst class."""
    return {ALL: 100 * float(recalls(rows["label"].to_numpy(), rows["predicted"].to_numpy()).min())}
