"""How every picture of the report looks: colours, sizes, and its encoding as SVG (page) and PNG (text).

A panel is one picture for one question. On the page each panel is an image of its own, so that a narrow window shows
them below one another; the text's PNG shows the panels of a chart in one row. Equal numbers give equal bytes.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# Okabe and Ito's palette (jfly.uni-koeln.de/color, 2008), which colour-blind readers can tell apart; without yellow,
# which is too light for a line on white. The last one is the colour of the text.
INK, GRID = "#1b1c1e", "#c9cacc"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", INK)
MARKERS = ("o", "s", "^", "D")
DASHES = ("-", "--", ":", "-.")
GROUP_COLOURS = {"many": "#0072b2", "medium": "#56b4e9", "few": "#e69f00"}
FLAT = "#0072b2"  # of a picture that shows one run only
RULES: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a class may be named $5
    "svg.fonttype": "path",  # the same letters on every machine
    "svg.hashsalt": "ltpipe",  # else the ids inside are random
}
# the text and the lines of an SVG follow the reader's light or dark mode
THEME = (
    "<style>:root{--ink:#1b1c1e;--grid:#d4d5d7}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e8e6e1;--grid:#45474b}}</style>"
)


class Mark(NamedTuple):
    """How one run is drawn, in every picture and table."""

    colour: str
    marker: str
    dashes: str
    variant: int


class Panel(NamedTuple):
    """One picture. draw: draws into an empty figure or part of one; alt: what a reader hears who does not see it."""

    alt: str
    draw: Callable[[Any], None]
    width: float = 5.2  # inches
    height: float = 3.6


def marks(runs: Sequence[str]) -> dict[str, Mark]:
    """Return the look of each run: seven colours, then the same with other markers and dashes."""
    looks = {}
    for number, run in enumerate(runs):
        variant, colour = divmod(number, len(PALETTE))
        looks[run] = Mark(PALETTE[colour], MARKERS[variant % 4], DASHES[variant % 4], variant % 4)
    return looks


def _draw(panels: Sequence[Panel]) -> Any:
    from matplotlib.figure import Figure  # not pyplot, which keeps global state and looks for a display

    size = (sum(panel.width for panel in panels), max(panel.height for panel in panels))
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(1, len(panels), squeeze=False, width_ratios=[panel.width for panel in panels])
    for part, panel in zip(parts[0], panels, strict=True):
        panel.draw(part)
    return figure


def _save(panels: Sequence[Panel], **options: Any) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(RULES):
        _draw(panels).savefig(buffer, **options)
    return buffer.getvalue()


def fading() -> Any:
    """Return a colour map from nothing, which is the page's own colour, light or dark, to the colour of one run."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    return LinearSegmentedColormap.from_list("fading", [to_rgba(FLAT, 0.0), to_rgba(FLAT, 1.0)])


def png(panels: Sequence[Panel]) -> bytes:
    """Return the panels in one row, on white."""
    # matplotlib writes its version into the file unless told otherwise
    return _save(panels, format="png", dpi=110, facecolor="white", metadata={"Software": None})


def svg(panel: Panel) -> str:
    """Return the panel as a data URI; its text and lines follow the reader's light or dark mode."""
    nothing: Mapping[str, None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    text = _save([panel], format="svg", transparent=True, metadata=nothing).decode()
    text = text[text.index("<svg") :].replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    start = text.index(">") + 1
    return data_uri("image/svg+xml", (text[:start] + THEME + text[start:]).encode())


def data_uri(kind: str, content: bytes) -> str:
    """Return the content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
