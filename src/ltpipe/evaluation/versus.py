"""Two models on one test split: every part and class with its difference, and the pictures that changed sides.

Tables have the columns that predictions keep (`ltpipe.storage.manifest.KEPT`) and `predicted`; attrs["facts"] is the
provenance of the model. The mathematics is in `ltpipe.evaluation.paired`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.evaluation.metrics import ALL, ATTRIBUTE, members
from ltpipe.evaluation.paired import Drawing, at_most, compare_sides
from ltpipe.storage.manifest import GROUPS
from ltpipe.storage.table import Table

METHOD = (
    "paired bootstrap of originals, stratified by class (m - 1 of m drawn), percentile interval; "
    "no interval where no picture changed sides"
)
# what of a model's facts the result shows
SHOWN = ("cell", "seed", "recipe", "code", "checkpoint", "precision")


def require_alike(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Raise Refused unless the facts of two models name the same classes in the same order, and the same data."""
    if a["classes"] != b["classes"]:
        pairs = zip(a["classes"], b["classes"], strict=False)
        first = next((f"class {n} is {x!r} and {y!r}" for n, (x, y) in enumerate(pairs) if x != y), "more in one")
        sizes = f"{len(a['classes'])} and {len(b['classes'])}"
        raise Refused(f"A and B know other classes ({sizes}; {first}): only models of the same classes are compared")
    if a["data"] != b["data"]:
        raise Refused(f"A is of data {a['data']}, B of {b['data']}: models of one split are compared")


def choose_split(asked: str | None, found: Sequence[str]) -> str:
    """Return the split to compare on; the only test split if none is asked for. Raises Refused with the valid ones."""
    tests = [name for name in found if name.startswith("test")]
    if asked is None and len(tests) == 1:
        return tests[0]
    if asked is None or asked not in found:
        said = "there are several test splits" if asked is None else f"there is no split {asked!r}"
        raise Refused(f"{said}: choose one by --split; valid: {', '.join(found)}")
    return asked


def compare_models(a: Table, b: Table, split: str | None, drawing: Drawing, names: int) -> dict[str, Any]:
    """Return the comparison as JSON values. names: how many pictures that changed sides are named, of each kind.

    Raises Refused unless both tables hold the split's pictures, each once.
    """
    require_alike(a.attrs["facts"], b.attrs["facts"])
    found = sorted({*a["split"]} & {*b["split"]})
    name = choose_split(split, found)
    rows, right_a, right_b = _align(a[a["split"] == name], b[b["split"] == name], name)
    facts = a.attrs["facts"]
    return {
        "split": name,
        "data": facts["data"],
        "a": _show_facts(facts),
        "b": _show_facts(b.attrs["facts"]),
        "method": METHOD,
        **drawing._asdict(),
        "parts": {
            part: _compare_rows(rows[member], right_a[member], right_b[member], drawing)
            for part, member in members(rows, (ALL, *GROUPS, ATTRIBUTE))
        },
        "classes": _compare_classes(rows, right_a, right_b, drawing, facts["classes"]),
        "right_to_wrong": _name_rows(rows, right_a & ~right_b, names),
        "wrong_to_right": _name_rows(rows, ~right_a & right_b, names),
    }


def _show_facts(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in SHOWN if key in facts}


def _align(a: Table, b: Table, split: str) -> tuple[Table, np.ndarray, np.ndarray]:
    """Return the pictures in order of their ids, and whether A and B are right, bool, N each."""
    a, b = (table.sort_values("id", ignore_index=True) for table in (a, b))
    if a["id"].tolist() != b["id"].tolist() or a["id"].duplicated().any():
        other = len({*a["id"]} ^ {*b["id"]})
        raise Refused(
            f"A and B did not answer the same pictures of {split}: {len(a)} and {len(b)}, {other} in one alone"
        )
    label = a["label"].to_numpy()
    return a, a["predicted"].to_numpy() == label, b["predicted"].to_numpy() == label


def _compare_rows(rows: Table, a: np.ndarray, b: np.ndarray, drawing: Drawing) -> dict[str, Any]:
    labels, sources = rows["label"].to_numpy(), rows["source"].to_numpy(dtype=str)
    originals = len(np.unique(sources))
    changed = {"right_to_wrong": int((a & ~b).sum()), "wrong_to_right": int((~a & b).sum())}
    rates = {name: of._asdict() for name, of in compare_sides(labels, sources, a, b, drawing).items()}
    bound = {} if any(changed.values()) else {"at_most_changed": at_most(originals, drawing.level)}
    return {"pictures": len(rows), "originals": originals, **changed, **bound, **rates}


def _compare_classes(
    rows: Table, a: np.ndarray, b: np.ndarray, drawing: Drawing, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a row for each class that has pictures; of one class accuracy and recall are the same."""
    label = rows["label"].to_numpy()
    found = []
    for number in np.unique(label):
        of_class = label == number
        row = _compare_rows(rows[of_class], a[of_class], b[of_class], drawing)
        row["recall"] = row.pop("accuracy")
        group = rows["group"][of_class].iloc[0]
        found.append({"label": int(number), "class": classes[number], "group": group, **row})
    return found


def _name_rows(rows: Table, chosen: np.ndarray, names: int) -> dict[str, Any]:
    return {"n": int(chosen.sum()), "first": rows["id"][chosen].head(names).tolist()}


def find_falls(comparison: dict[str, Any], max_fall: float) -> list[str]:
    """Return a line for each part (all, and the groups) whose accuracy or recall fell by more than `max_fall` points.

    What fell is what was measured on these very pictures; the interval says how far other pictures might disagree.
    """
    return [
        f"{rate} of {part} fell by {-value['difference']:.2f} points, more than {max_fall:g}"
        for part, row in comparison["parts"].items()
        if part in (ALL, *GROUPS)
        for rate, value in (("accuracy", row["accuracy"]), ("recall", row["recall"]))
        if value["difference"] < -max_fall - 1e-9  # a fall of just max_fall, which rounding makes a little more, passes
    ]


def to_text(comparison: dict[str, Any]) -> str:
    """Return the comparison for a terminal."""
    parts, names = comparison["parts"], ("a", "b")
    heads = [f"{name.upper()}  " + "  ".join(f"{k} {v}" for k, v in comparison[name].items()) for name in names]
    whole = parts[ALL]
    lines = [
        *heads,
        f"{comparison['split']}: {whole['pictures']} pictures of {whole['originals']} originals; percent, "
        f"B - A in points, {100 * comparison['level']:g} % interval",
        f"({comparison['method']}; {comparison['resamples']} replicates, seed {comparison['seed']})",
        "",
        _HEAD.format("accuracy"),
        *(_line(part, row, "accuracy") for part, row in parts.items()),
        "",
        _HEAD.format("recall (mean over classes)"),
        *(_line(part, row, "recall") for part, row in parts.items() if not part.startswith("attribute")),
        "",
        _HEAD.format("recall of a class"),
        *(_line(f"{row['class']} ({row['group']})", row, "recall") for row in comparison["classes"]),
        "",
        *(_sides(comparison, key) for key in ("right_to_wrong", "wrong_to_right")),
    ]
    return "\n".join(lines) + "\n"


_HEAD = "{:<28} pictures       A       B    B - A   interval           right->wrong  wrong->right"


def _line(name: str, row: dict[str, Any], rate: str) -> str:
    d = row[rate]
    if d["low"] is None and "at_most_changed" not in row:
        interval = "none: too few originals"
    elif d["low"] is None:
        interval = f"none: <= {row['at_most_changed']:.1f} % change"
    else:
        interval = f"{d['low']:+.2f} .. {d['high']:+.2f}"
    shown = f"{d['a']:>7.2f} {d['b']:>7.2f} {d['difference']:>+8.2f}   {interval:<22}"
    return f"{name:<28} {row['pictures']:>8} {shown} {row['right_to_wrong']:>8} {row['wrong_to_right']:>13}"


def _sides(comparison: dict[str, Any], key: str) -> str:
    side = comparison[key]
    more = ", ..." if side["n"] > len(side["first"]) else ""
    return f"{key.replace('_to_', ' -> ')}: {side['n']} pictures: {', '.join(side['first'])}{more}"
