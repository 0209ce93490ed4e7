"""What a pull request changes of a model's numbers, by group and by class.

Old is accepted on its base, new is measured here. Rates in percent, means over seeds.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ltpipe.evaluation.baseline import Accepted
from ltpipe.evaluation.metrics import parse_path
from ltpipe.evaluation.report.classes import SAME, accepted_recall
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table

CLASSES = 10


class Changed(NamedTuple):
    """One number of a run; name: of what, e.g. glt few, or of a class."""

    run: str
    name: str
    old: float
    new: float

    @property
    def size(self) -> float:
        """How far apart the two are."""
        return abs(self.new - self.old)


def by_group(verdict: Mapping[str, Any], old: Accepted, recommended: str | None = None) -> dict[str, list[Changed]]:
    """Return for each run that has a change its numbers of all classes and of each group, for every protocol.

    Of the runs that are gated and of the recommended one; the one that changed most comes first. The metric is that of
    the gate's primary one.
    """
    gated = {row["run"] for row in verdict["rows"] if row["verdict"] != "not judged"} | {recommended}
    metric, found = parse_path(verdict["primary"]).metric, {}
    for summary in verdict["summaries"]:
        run, new = summary["run"], summary["metrics"]
        before = old.runs[run].mean if run in old.runs and run in gated else {}
        protocols = dict.fromkeys(path.split(".")[0] for path in new)
        paths = [(f"{p} {part}", f"{p}.{metric}.{part}") for p in protocols for part in ("all", *GROUPS)]
        rows = [Changed(run, name, before[p], new[p]["mean"]) for name, p in paths if p in before and p in new]
        if any(row.size >= SAME for row in rows):
            found[run] = rows
    return dict(sorted(found.items(), key=lambda item: -max(row.size for row in item[1])))


def by_class(
    classes: Mapping[str, Any], old: Accepted, manifest: Table, protocol: str, runs: Iterable[str]
) -> list[Changed]:
    """Return the classes of these runs whose recall changed most, at most ten.

    classes: `ltpipe.evaluation.report.classes.recalls`. manifest: columns id, split and label, of the accepted data.
    """
    split, changed = classes["splits"][protocol], []
    test = manifest[manifest["split"] == split]
    for run in runs:
        measured = classes["recall"].get(run, {}).get(protocol)
        if run not in old.runs or measured is None:
            continue
        before = accepted_recall(old.runs[run], test, split)
        rows = [Changed(run, classes["names"][label], before[int(label)], new) for label, new in measured.items()]
        changed += [row for row in rows if row.size >= SAME]
    return sorted(changed, key=lambda row: -row.size)[:CLASSES]


def first_runs(found: Sequence[str], recommended: str | None, failed: Sequence[str], most: int) -> list[str]:
    """Return the runs that are drawn: the recommended one, those that fail the gate, then in the order of `found`."""
    wanted = dict.fromkeys([*([recommended] if recommended else []), *failed, *found])
    return [run for run in wanted if run in found][:most]
