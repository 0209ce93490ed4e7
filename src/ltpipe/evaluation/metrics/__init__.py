"""Metrics: each file is one metric, computed from the predictions for one test split; the file's name is its name.

A docstring with the formula and its source, and

    HIGHER_IS_BETTER            whether a larger value is better
    PARTS                       the parts of the test set of which the metric can have a value, ("all",) or more:
                                "all", the groups many, medium and few, ATTRIBUTE ("attribute<rank>": attribute0, ...;
                                and "attribute=<name>": attribute=night, if the images have names for theirs)
    measure(rows, classes)      -> part -> value, in percent

rows is a table with a row for each image of the test split and the columns label, predicted (0..classes-1),
confidence (0..1), group, attribute (its rank in the class; -1 if the data have none), and, if attributes have names,
attribute_name ("": unknown). It is not empty. Part `all` always has a value; any other part without images is left out,
it is not 0.

A metric path names one value: `<protocol>.<metric>.<part>`, e.g. glt.accuracy.few; or `<protocol>.<metric>` if the
metric has no parts but `all`, e.g. glt.macro_f1.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator

from ltpipe.config.spec import load_item, menu_names
from ltpipe.storage.table import Table

MENU = __name__
ALL = "all"
ATTRIBUTE = "attribute<rank>"


class Place(NamedTuple):
    """What a metric path names."""

    protocol: str
    metric: str
    part: str


def parse_path(path: str) -> Place:
    """Return protocol, metric and part of a metric path. The caller knows the protocols; they are not checked here.

    Raises ValueError with the valid metrics or parts if there is no such metric or part.
    """
    protocol, _, rest = path.partition(".")
    metric, dot, part = rest.partition(".")
    names = menu_names(MENU)
    if not protocol or metric not in names:
        raise ValueError(f"{path!r} is not <protocol>.<metric>.<part>; metrics: {', '.join(names)}")
    if not has_parts(metric):
        if dot:
            raise ValueError(f"{path!r}: {metric} has no parts, write {protocol}.{metric}")
        return Place(protocol, metric, ALL)
    parts = load_item(MENU, metric).PARTS
    # ranks are written without leading zeros, so that a value has one path
    valid = "|".join(parts).replace(ATTRIBUTE, "attribute(0|[1-9][0-9]*)|attribute=.+")
    if not re.fullmatch(valid, part):
        shown = ", ".join(parts).replace(ATTRIBUTE, f"{ATTRIBUTE}, attribute=<name>")
        raise ValueError(f"{path!r} is not {protocol}.{metric}.<part>; parts of {metric}: {shown}")
    return Place(protocol, metric, part)


def has_parts(metric: str) -> bool:
    """Tell whether the metric can have a value of other parts than `all`."""
    return tuple(load_item(MENU, metric).PARTS) != (ALL,)


def higher_is_better(path: str) -> bool:
    """Tell whether a larger value of a metric path is better. Raises ValueError as `parse_path` does."""
    return bool(load_item(MENU, parse_path(path).metric).HIGHER_IS_BETTER)


def _check_path(path: str) -> str:
    parse_path(path)
    return path


# The type of a parameter that is a metric path.
MetricPath = Annotated[str, AfterValidator(_check_path)]


def members(rows: Table, parts: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each of these parts that has images, and which rows they are: bool, N. parts: as in PARTS."""
    for part in parts:
        if part == ALL:
            yield part, np.ones(len(rows), bool)
        elif part == ATTRIBUTE:
            yield from _rank_members(rows)
            yield from _name_members(rows)
        elif (member := (rows["group"] == part).to_numpy()).any():
            yield part, member


def attribute_members(rows: Table) -> list[tuple[str, np.ndarray]]:
    """Return the part of each attribute, and which rows have it: by name if there are names, else by rank."""
    return list(_name_members(rows)) or list(_rank_members(rows))


def _rank_members(rows: Table) -> Iterator[tuple[str, np.ndarray]]:
    ranks = rows["attribute"].to_numpy()
    yield from ((f"attribute{rank}", ranks == rank) for rank in np.unique(ranks[ranks >= 0]))


def _name_members(rows: Table) -> Iterator[tuple[str, np.ndarray]]:
    if "attribute_name" in rows:
        names = rows["attribute_name"].to_numpy(dtype=str)
        yield from ((f"attribute={name}", names == name) for name in np.unique(names[names != ""]))
