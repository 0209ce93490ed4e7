"""The table of predictions: its columns, and its rows as text of CSV or JSON lines, or as parquet.

    path            as it was named, or as it was found in a named folder; bytes that are not UTF-8 are written as \\xNN
    label           class number from 0; empty if the probability is below the threshold
    class           name of the class; empty with the label
    probability     of that class, or of the most probable one if the label is empty; 0..1, six decimals
    label_2, class_2, probability_2, ...    the next classes, up to --top-k; the threshold leaves them as they are
    p_<class>, ...  with --probabilities: of every class, in the order of labels; p_<label>_<class> if two classes have
                    one name

All formats have the same columns and values; empty is null in JSON and parquet.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.serving.files import write_name

DIGITS = 6  # decimals of a probability
BLOCK = 4096  # rows of a row group in parquet
ENDINGS = (".csv", ".jsonl", ".parquet")
Row = list[Any]


@dataclass(frozen=True)
class Columns:
    """Which columns a table has. threshold: the smallest probability with which a class is named."""

    classes: Sequence[str]
    top_k: int = 1
    threshold: float = 0.0
    probabilities: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= len(self.classes):
            raise Refused(f"--top-k is {self.top_k}; the model has {len(self.classes)} classes: 1 to that many")

    def names(self) -> list[str]:
        """Return the names of the columns."""
        ends = ["", *(f"_{rank}" for rank in range(2, self.top_k + 1))]
        ranks = [name + end for end in ends for name in ("label", "class", "probability")]
        return ["path", *ranks, *(self._name_all() if self.probabilities else [])]

    def _name_all(self) -> list[str]:
        if len(set(self.classes)) == len(self.classes):
            return [f"p_{name}" for name in self.classes]
        return [f"p_{label}_{name}" for label, name in enumerate(self.classes)]

    def row(self, path: Path, chances: np.ndarray) -> Row:
        """Return the row of an image. chances: probability of each class, C."""
        rounded = np.round(chances, DIGITS)
        order = np.argsort(-chances, kind="stable")[: self.top_k].tolist()
        values: Row = [write_name(path)]
        for label in order:
            values += [label, self.classes[label], float(rounded[label])]
        # what is written is what is compared: no row shows 0.500000 as below 0.5
        if values[3] < self.threshold:
            values[1:3] = [None, None]
        return values + (rounded.tolist() if self.probabilities else [])


def to_text(ending: str, names: Sequence[str], rows: Sequence[Row], first: bool) -> str:
    """Return rows as lines of text, as a file with this ending holds them; of parquet, as JSON lines.

    first: no row was written before. Without rows there is no line, not even that of the names.
    """
    if ending != ".csv":
        return "".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
    return "".join(_to_csv(row) for row in ([list(names)] if first and rows else []) + list(rows))


def _to_csv(values: Row) -> str:
    text = io.StringIO(newline="")
    fields = [f"{value:.{DIGITS}f}" if isinstance(value, float) else value for value in values]
    # with this line end the writer also quotes a name with a carriage return, which Python 3.11 would leave bare
    csv.writer(text, lineterminator="\r\n").writerow(fields)
    return text.getvalue().removesuffix("\r\n") + "\n"


def write_parquet(lines: Path, columns: Columns, out: Path) -> None:
    """Write a file of JSON lines as parquet, a block at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"label": pa.int64(), "class": pa.string(), "path": pa.string()}
    schema = pa.schema(
        [(n, pa.float64() if n.startswith("p_") else kinds.get(n.split("_")[0], pa.float64())) for n in columns.names()]
    )
    with lines.open(encoding="utf-8", newline="\n") as file, pq.ParquetWriter(out, schema) as writer:
        for block in _blocks(file):
            writer.write_table(pa.Table.from_pylist([json.loads(line) for line in block], schema))


def _blocks(lines: Iterator[str]) -> Iterator[list[str]]:
    while block := list(islice(lines, BLOCK)):
        yield block
