"""What `ltpipe init` prints: the pictures in numbers, the tail as bars, what differs from the last time."""

import sys
from collections.abc import Mapping, Sequence

import numpy as np

from ltpipe.storage.table import Table
from ltpipe.survey.folder import SPLITS, Survey

SHOWN = 10  # lines of a list
CLASSES = 40  # rows of the table; of more classes, the first and the last by size
WIDTH = 30  # characters of the longest bar
FEW = 5  # test pictures with which a class's recall has steps of 20 points


def can_print(text: str) -> bool:
    """Tell whether the terminal, or the file that stands for it, can show the text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def listed(lines: Sequence[str]) -> list[str]:
    """Return the first lines, indented, and how many more there are."""
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*(f"  {line}" for line in lines[:SHOWN]), *more]


def describe_pictures(survey: Survey) -> list[str]:
    """Return what there is: number, endings, sizes, what is broken, what is equal."""
    shorter = survey.sizes.min(axis=1)
    endings = ", ".join(f"{number:,} {ending}" for ending, number in survey.endings.items())
    lines = [
        f"{len(survey.index):,} pictures of {len(survey.names())} classes ({endings})",
        f"shorter side: {shorter.min()} to {shorter.max()} pixels, median {np.median(shorter):g}",
    ]
    if survey.broken:
        lines += [f"{len(survey.broken)} broken files are left out (source.options.broken: exclude):"]
        lines += listed([f"{path}: {reason}" for path, reason in survey.broken.items()])
    if survey.equal:
        lines += [f"{len(survey.equal)} files of equal content are left out (source.options.duplicates: exclude):"]
        lines += listed([f"{path} is {kept}" for path, kept in survey.equal.items()])
    return lines


def describe_lookalikes(survey: Survey, pairs: Sequence[tuple[int, int]], manifest: Table) -> list[str]:
    """Return a warning that lists pairs that look alike, those in two splits first; pairs: rows of the index."""
    if not pairs:
        return []
    images = survey.index["image"].tolist()
    split = dict(zip(manifest["image"], manifest["split"], strict=True))
    named = [(split.get(images[i]), images[i], split.get(images[j]), images[j]) for i, j in pairs]
    apart = sum(first != second for first, _, second, _ in named)
    lines = [f"{a} ({first}), {b} ({second})" for first, a, second, b in sorted(named, key=lambda p: p[0] == p[2])]
    head = f"warning: {len(pairs)} pairs look alike, {apart} of them in two splits; nothing is left out, look at them:"
    return [head, *listed(lines)]


def table(names: Sequence[str], splits: Mapping[str, Sequence[int]], groups: Sequence[str]) -> list[str]:
    """Return a row for each class, the largest in train first: pictures of each split, group, a bar for train.

    names, groups: of each class, C. splits: split -> pictures of each class, C.
    """
    train = splits["train"]
    order = sorted(range(len(names)), key=lambda c: -train[c])
    bar = "\u2588" if can_print("\u2588") else "#"
    shown = [name if can_print(name) else ascii(name) for name in names]
    width = max(5, *(len(name) for name in shown))
    lines = [f"{'class':{width}}  train    val   test  group"]
    rows = [
        f"{shown[c]:{width}} "
        + " ".join(f"{splits[split][c]:6}" for split in SPLITS)
        + f"  {groups[c]:6}  "
        # a class of one picture has a bar too
        + bar * max(round(WIDTH * train[c] / max(train)), 1)
        for c in order
    ]
    if len(rows) > CLASSES:
        half = CLASSES // 2
        rows = [*rows[:half], f"... {len(rows) - CLASSES} classes ...", *rows[-half:]]
    return [*lines, *rows]


def warn_of_few(names: Sequence[str], splits: Mapping[str, Sequence[int]]) -> list[str]:
    """Return a warning for test and val that names the classes with fewer than FEW pictures.

    splits: split -> pictures of each class, C.
    """
    lines = []
    for split, why in (("test", "whose recall says little"), ("val", "on which post-hoc runs choose their tau")):
        few = [f"{name} ({number})" for name, number in zip(names, splits[split], strict=True) if number < FEW]
        more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
        if few:
            lines.append(f"warning: fewer than {FEW} {split} pictures, {why}: {', '.join(few[:SHOWN])}{more}")
    return lines


def describe_one_colour(paths: Sequence[str]) -> list[str]:
    """Return a warning that names pictures of a single colour; paths: theirs."""
    return [f"warning: {len(paths)} of a single colour; nothing is left out:", *listed(list(paths))] if paths else []


def describe_moves(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return how the split moved; before, now: path of a picture -> its split. Empty: no tested picture moved."""
    tested = [path for path, split in before.items() if split == "test" and path in now]
    learned = sum(now[path] != "test" for path in tested)
    if not learned:
        return []
    return [
        f"split: {learned} of {len(tested)} test pictures will be in train or val, where the next model learns them"
    ]


def differences(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what differs; before, now: path of a picture -> (class, digest, split). Empty: nothing."""
    was, has = (_count_classes(pictures) for pictures in (before, now))
    lines = [f"class {name} is new, {has[name]} pictures" for name in has if name not in was]
    lines += [f"class {name} is gone, {was[name]} pictures" for name in was if name not in has]
    lines += [f"class {c}: {was[c]} -> {has[c]} pictures" for c in has if c in was and was[c] != has[c]]
    changed = [path for path in now if path in before and list(before[path]) != list(now[path])]
    for title, paths in (
        ("added", [path for path in now if path not in before]),
        ("removed", [path for path in before if path not in now]),
        ("changed", changed),
    ):
        lines += [f"{title}: {len(paths)} pictures", *listed(paths)] if paths else []
    return lines


def _count_classes(pictures: Mapping[str, Sequence[str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for label, *_ in pictures.values():
        counts[label] = counts.get(label, 0) + 1
    return counts


def describe_time(seconds: float) -> str:
    """Return a duration in words of a sensible unit."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{float(f'{seconds / length:.2g}'):g} {unit}"
    return f"{max(seconds, 1):.0f} seconds"


def describe_size(size: int) -> str:
    """Return bytes as MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 1):.0f} MB"
