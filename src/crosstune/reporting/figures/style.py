"""What all figures share: style, panels, rounded axis limits, labels that the fonts can draw.

Figures are rendered in memory: no window is opened, no file written. The same data gives the same
bytes.
"""

import io
import logging
import re
import textwrap
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crosstune.printable import strip_controls

TEXT_COLOUR = "#24292f"  # text and axes; a page may replace it to suit a dark background
BLUE = "#2f7fc1"  # legible on white and on black, as are all of these
GREY = "#8b939c"
COLOURS = (BLUE, "#d1651f", "#2c9a5b", "#b5459b", "#8a7a1c", "#c23b4b", "#5a6fd0", "#6f7780")
FONT_SIZE = 8
log = logging.getLogger(__name__)
# Fonts with Chinese characters, best first; DejaVu, which comes with matplotlib, has none.
_CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",  # the name by which matplotlib knows the collection of all of them
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "SimHei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
)
_CHINESE_FILES = re.compile(r"NotoSans(CJK|SC)-?.*Regular|wqy-|SourceHanSans.*Regular|simhei", re.I)


@dataclass(frozen=True)
class Drawing:
    """One figure in two formats; `cut` says what was left out, and is empty if nothing was."""

    svg: str
    png: bytes
    cut: str


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of a report, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rc("font", family=_list_families(), size=FONT_SIZE)
        mpl.rc("svg", fonttype="path", hashsalt="crosstune")  # ids from content, not at random
        mpl.rc("text", parse_math=False, color=TEXT_COLOUR)  # a dollar in a label is a dollar
        mpl.rc(
            "axes",
            edgecolor=TEXT_COLOUR,
            labelcolor=TEXT_COLOUR,
            labelsize=FONT_SIZE,
            titlesize=FONT_SIZE,
        )
        mpl.rc("axes", grid=True, axisbelow=True, titley=1.0)  # a fixed y saves the search for one
        mpl.rc("axes.spines", top=False, right=False)
        mpl.rc("grid", color=TEXT_COLOUR, alpha=0.15, linewidth=0.6)
        mpl.rc("xtick", color=TEXT_COLOUR, bottom=False)
        mpl.rc("ytick", color=TEXT_COLOUR, left=False)
        mpl.rc("legend", frameon=False, fontsize=FONT_SIZE)
        yield


def make_panels(
    count: int, columns: int, size: tuple[float, float], gap: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels, row by row; size of the plots and gaps between, in points.

    The gaps must hold the labels between the panels; saving adds space for those around them.
    """
    columns = min(columns, count) or 1
    rows = -(-count // columns) or 1
    (width, height), (right, below) = size, gap
    points = columns * (width + right) - right, rows * (height + below) - below
    figure = Figure(figsize=(points[0] / 72, points[1] / 72))
    spacing = {"wspace": right / width, "hspace": below / height}
    grid = figure.add_gridspec(rows, columns, left=0, right=1, bottom=0, top=1, **spacing)
    return figure, [figure.add_subplot(grid[divmod(i, columns)]) for i in range(count)]


def add_legend(axes: Axes, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Name what is drawn, at the right of a panel."""
    labels = [wrap_label(name, 30, lines=1) for name in names]
    axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1, 1))


def render_drawing(figure: Figure, cut: str) -> Drawing:
    """Return a figure in both formats."""
    svg, png = io.StringIO(), io.BytesIO()
    # measured once: bbox_inches="tight" lays the figure out again for each format
    box = figure.get_tightbbox().padded(mpl.rcParams["savefig.pad_inches"])
    figure.savefig(svg, format="svg", bbox_inches=box, transparent=True, metadata={"Date": None})
    fast = {"compress_level": 3}  # the default takes a large part of the drawing time
    options = {"bbox_inches": box, "facecolor": "white", "pil_kwargs": fast}
    figure.savefig(png, format="png", dpi=100, **options)
    return Drawing(svg.getvalue(), png.getvalue(), cut)


def set_round_ticks(
    axes: Axes, axis: Literal["x", "y"], values: Sequence[float], most: float = 100
) -> None:
    """Let an axis run between round values around `values`, within 0 to `most` if these are."""
    low, high = (min(values), max(values)) if values else (0, 100)
    margin = 0.05 * max(high - low, 10)  # a few points do not fill the whole width
    locator = MaxNLocator(4, steps=[1, 2, 5, 10])
    ticks = locator.tick_values(max(low - margin, min(low, 0)), min(high + margin, max(high, most)))
    limits, labels = (ticks[0], ticks[-1]), [f"{tick:g}" for tick in ticks]
    axes.set(**{f"{axis}ticks": ticks, f"{axis}ticklabels": labels, f"{axis}lim": limits})


def wrap_label(text: str, width: int, lines: int = 3) -> str:
    """Return a label of at most so many lines; the tables have it in full."""
    return textwrap.fill(escape_missing_glyphs(text), width, max_lines=lines, placeholder="…")


def escape_missing_glyphs(text: str, glyphs: Container[int] | None = None) -> str:
    r"""Return the text with each character that no installed font has as its \u escape.

    >>> print(escape_missing_glyphs("es 标签", range(128)))
    es \u6807\u7b7e
    """
    has_glyph = _has_glyph if glyphs is None else glyphs.__contains__
    shown = strip_controls(text)
    missing = {char for char in shown if not has_glyph(ord(char))}
    if missing:
        _warn_of_missing_glyphs()
    codes = {char: char.encode("ascii", "backslashreplace").decode() for char in missing}
    return shown.translate(str.maketrans(codes))


@cache
def _list_families() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    if installed.isdisjoint(_CHINESE):
        installed |= _add_new_fonts()
    return ["DejaVu Sans", *[name for name in _CHINESE if name in installed][:1]]


def _add_new_fonts() -> set[str]:
    """Add Chinese fonts installed since matplotlib built its cache; return all names."""
    folders = (Path(folder).expanduser() for folder in font_manager.X11FontDirectories)
    paths = (path for folder in folders for path in sorted(folder.rglob("*.[ot]t[cf]")))
    for path in paths:
        if _CHINESE_FILES.match(path.name):
            font_manager.fontManager.addfont(path)
    return {font.name for font in font_manager.fontManager.ttflist}


@cache
def _warn_of_missing_glyphs() -> None:
    log.warning(
        "Figures show some characters by their codes: no installed font has them. "
        "Debian's fonts-noto-cjk has Chinese."
    )


@cache
def _has_glyph(code: int) -> bool:
    paths = (font_manager.findfont(family) for family in _list_families())
    return any(font_manager.get_font(path).get_char_index(code) for path in paths)
