"""Charts as text that GitHub draws: blocks of mermaid (mermaid.js.org, xychart) in comments and step summaries.

Pictures of our own cannot be there: GitHub shows no data: address, and nothing of an artifact. Bars and a line differ
by their shape, so that they need no legend and no eye for colours; mermaid draws bars of one place over one another.
The bars lie: of bars that stand, mermaid leaves out long labels.
"""

import itertools
import math
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Signs that mean something to mermaid even between quotes, or that it shows otherwise, and what stands for them: signs
# that every font has. Mermaid's own entities (#34;) would be read back, but it measures them as text, and leaves out
# all labels if one seems too wide.
ALIKE: dict[str, str | int | None] = {
    '"': "\N{RIGHT DOUBLE QUOTATION MARK}",
    "`": "\N{RIGHT SINGLE QUOTATION MARK}",
    "<": "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}",
    ">": "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}",
    "&": "+",
    ";": ",",  # it would end an entity that begins with #
}
WIDTH = 24  # of a label, in letters; a sign of Chinese or an emoji is two wide
# Okabe and Ito's sky blue and vermilion, which are seen on GitHub's light and dark page
COLOURS = "#56b4e9, #d55e00"


class Place(NamedTuple):
    """One place of a chart: its label, and the values in percent that its bar and the line have there."""

    label: str
    bar: float
    line: float


def escape(text: str) -> str:
    """Return any text as what may stand between quotes, on one line."""
    # of all that is not seen, e.g. line ends and marks that turn the direction of a line, a space is left
    plain = "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in text)
    # two of % begin a remark
    return " ".join(plain.split()).translate(str.maketrans(ALIKE)).replace("%%", "% %").replace("%%", "% %")


def label_all(names: Sequence[str]) -> list[str]:
    """Return labels that are short and differ: places with one label would be one place."""
    labels: list[str] = []
    for name in names:
        short = _cut(escape(name)) or "-"
        others = (f"{short} ({number})" for number in itertools.count(2))
        labels.append(next(label for label in itertools.chain([short], others) if label not in labels))
    return labels


def _cut(text: str) -> str:
    widths = np.cumsum([2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text])
    return text if not text or widths[-1] <= WIDTH else f"{text[: int((widths < WIDTH).sum())]}…"


def draw_bars_and_line(title: str, unit: str, places: Sequence[Place]) -> list[str]:
    """Return the lines of a block: bars of what is measured here, and a line of what is accepted on the base.

    unit: what the values are. Fewer than two places give none: a line of one point is not seen.
    """
    if len(places) < 2:
        return []
    low = max(0, 10 * math.floor((min(min(p.bar, p.line) for p in places) - 5) / 10))
    scale = f"{unit} in percent{f', from {low}' if low else ''}"
    labels = ", ".join(f'"{label}"' for label in label_all([p.label for p in places]))
    return [
        "```mermaid",
        "---",
        "config:",
        f"  xyChart: {{width: 760, height: {110 + 32 * len(places)}, plotReservedSpacePercent: 40}}",
        "  themeVariables:",
        f'    xyChart: {{plotColorPalette: "{COLOURS}"}}',
        "---",
        "xychart-beta horizontal",
        f'  title "{escape(title)} (bars: here, line: base)"',
        f"  x-axis [{labels}]",
        f'  y-axis "{escape(scale)}" {low} --> 100',
        f"  bar [{', '.join(f'{p.bar:.2f}' for p in places)}]",
        f"  line [{', '.join(f'{p.line:.2f}' for p in places)}]",
        "```",
    ]
