"""The figure of a study: every seed's score and their mean, one panel per column of the table.

Also what `pareto.py` shares: the style, round ticks, labels that the fonts can draw. No window is
ever opened and no file written: `report.py` does that. The same table gives the same bytes.
"""

import io
import logging
import re
import textwrap
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from crosstune.reporting.cells import Cell, Table
from crosstune.reporting.escape import strip_controls
from crosstune.reporting.figures.drawing import INK, Drawing

Point = tuple[float, float]

MAX_PANELS = 12  # text takes most of a figure's time
MAX_ARMS = 40
DOT = "#2f7fc1"  # legible on white and on black
log = logging.getLogger(__name__)
# Fonts with Chinese characters, best first; DejaVu, which matplotlib brings along, has none.
_CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",  # by which matplotlib knows the collection of all of them
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


def draw_scores(table: Table) -> Drawing:
    """Return small multiples of a table: a dot per seed, a stroke at the mean, arms on the y axis.

    Scores are in percentage points. An arm without a finished run is labelled with what became of
    it. At most 12 columns and 40 arms are drawn.
    """
    cells = [cell for cell in table.cells if cell.row < MAX_ARMS]
    with styled():
        sheet = _Sheet([row[0] for row in table.rows[:MAX_ARMS]], table.columns[:MAX_PANELS])
        for column in range(len(sheet.titles)):
            sheet.draw_panel(column, [cell for cell in cells if cell.column == column])
        sheet.draw_marks()
        return render_drawing(sheet.figure, _cut(table))


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the house style, whatever the reader's own matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rc("font", family=_families(), size=8)
        mpl.rc("svg", fonttype="path", hashsalt="crosstune")  # ids from content, not from chance
        mpl.rc("text", parse_math=False, color=INK)  # a dollar in a label is a dollar
        yield


def render_drawing(figure: Figure, cut: str) -> Drawing:
    """Return a figure in both formats."""
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    quick = {"compress_level": 3}  # encoding is a large part of the drawing time
    figure.savefig(png, format="png", dpi=100, facecolor="white", pil_kwargs=quick)
    return Drawing(svg.getvalue(), png.getvalue(), cut)


def open_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one bare axes in points, y downwards.

    One axes per panel would cost matplotlib a tenth of a second each.
    """
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def write_text(axes: Axes, place: Point, text: str, **style: Any) -> None:
    """Write on an open axes; nothing is clipped, which would take as long as the text."""
    family = _families()[:1] if text.isascii() else _families()  # each takes time to look up
    artist = Text(*place, text, transform=axes.transData, family=family, **style)
    axes.figure.add_artist(artist, clip=False)


class _Sheet:
    """A figure on whose one axes every panel is laid out."""

    def __init__(self, arms: Sequence[str], columns: Sequence[str]) -> None:
        self.arms = [fold(arm, 46) for arm in arms]
        self.titles = [fold(column, 30) for column in columns]
        self.wide = min(4, len(columns)) or 1
        lines = [line for label in self.arms for line in label.split("\n")]
        self.left = 10 + max((_measure(line) for line in lines), default=0)
        self.top = 12 + 11 * max((1 + title.count("\n") for title in self.titles), default=1)
        self.step = 11 * max((1 + label.count("\n") for label in self.arms), default=1) + 3
        self.panel = (150, self.step * len(arms))
        high = -(-len(columns) // self.wide) or 1
        width = self.left + self.wide * (self.panel[0] + 24)
        height = high * (self.top + self.panel[1] + 24)
        self.figure, self.axes = open_axes(width, height)
        self.rules: list[list[Point]] = []
        self.grid: list[list[Point]] = []
        self.dots: list[Point] = []
        self.means: list[Point] = []

    def draw_panel(self, column: int, cells: Sequence[Cell]) -> None:
        """Draw one column of the table: its title, axis, dots and means."""
        width, height = self.panel
        x0 = self.left + (column % self.wide) * (width + 24)
        y0 = (column // self.wide) * (self.top + height + 24) + self.top
        self._write(x0 + width / 2, y0 - 6, self.titles[column], ha="center", va="bottom")
        if column % self.wide == 0:
            for row, label in enumerate(self.arms):
                self._write(x0 - 6, y0 + (row + 0.5) * self.step, label, ha="right", va="center")
        scores = [(100 * score, cell.row) for cell in cells for score in cell.scores]
        ticks = round_ticks([score for score, _ in scores])
        low, high = ticks[0], ticks[-1]

        def place(score: float, row: float) -> Point:
            return x0 + width * (score - low) / (high - low), y0 + (row + 0.5) * self.step

        self.rules.append([(x0, y0 + height), (x0 + width, y0 + height)])
        for tick in ticks if scores else ():
            x, _ = place(tick, 0)
            self.grid.append([(x, y0), (x, y0 + height)])
            self._write(x, y0 + height + 4, f"{tick:g}", ha="center", va="top")
        self.dots += [place(score, row) for score, row in scores]
        for cell in cells:
            if cell.scores:
                self.means.append(place(100 * cell.mean, cell.row))
            else:
                _, y = place(low, cell.row)
                self._write(x0 + 3, y, drawable(cell.text), va="center", fontsize=6.5)

    def draw_marks(self) -> None:
        """Add the lines, dots and means of all panels at once."""
        rules = LineCollection(self.rules, colors=INK, linewidths=0.8)
        grid = LineCollection(self.grid, colors=INK, linewidths=0.6, alpha=0.15)
        self.axes.add_collection(rules, autolim=False)
        self.axes.add_collection(grid, autolim=False)
        dots = {"marker": "o", "color": DOT, "markersize": 4.5, "alpha": 0.7}
        means = {"marker": "|", "color": INK, "markersize": 10, "markeredgewidth": 1.4}
        for points, style in ((self.dots, dots), (self.means, means)):
            x, y = [point[0] for point in points], [point[1] for point in points]
            self.axes.add_line(Line2D(x, y, linestyle="none", **style))

    def _write(self, x: float, y: float, text: str, **style: Any) -> None:
        write_text(self.axes, (x, y), text, **style)


def round_ticks(scores: Sequence[float], most: float = 100) -> list[float]:
    """Return a few round values around the scores, from 0 to `most` unless they go beyond.

    >>> round_ticks([71.2, 78.9])
    [70.0, 72.0, 74.0, 76.0, 78.0, 80.0]
    """
    low, high = (min(scores), max(scores)) if scores else (0, 100)
    margin = 0.05 * max(high - low, 10)  # a few points are not blown up to the whole width
    locator = MaxNLocator(4, steps=[1, 2, 5, 10])
    values = locator.tick_values(
        max(low - margin, min(low, 0)), min(high + margin, max(high, most))
    )
    return [float(value) for value in values]


def fold(text: str, width: int) -> str:
    """Return a label on at most three lines; the table has it whole."""
    return textwrap.fill(drawable(text), width, max_lines=3, placeholder="…")


def _measure(line: str) -> float:
    """Return the width of a line of text in points."""
    font = font_manager.get_font(_paths())
    font.set_size(8, 72)  # at 72 dots per inch a dot is a point
    font.set_text(line, 0)
    return font.get_width_height()[0] / 64


def _cut(table: Table) -> str:
    counts = ((MAX_PANELS, len(table.columns), "columns"), (MAX_ARMS, len(table.rows), "rows"))
    parts = [f"the first {most} of {count} {what}" for most, count, what in counts if count > most]
    return f"The figure shows {' and '.join(parts)}; the table holds all." if parts else ""


def drawable(text: str, glyphs: Container[int] | None = None) -> str:
    r"""Return the text with each character that no font at hand can draw as its \u escape.

    >>> print(drawable("es 标签", range(128)))
    es \u6807\u7b7e
    """
    known = _has_glyph if glyphs is None else glyphs.__contains__
    shown = strip_controls(text)
    missing = {char for char in shown if not known(ord(char))}
    if missing:
        _tell_missing()
    codes = {char: char.encode("ascii", "backslashreplace").decode() for char in missing}
    return shown.translate(str.maketrans(codes))


@cache
def _families() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    if installed.isdisjoint(_CHINESE):
        installed |= _find_new()
    return ["DejaVu Sans", *[name for name in _CHINESE if name in installed][:1]]


def _find_new() -> set[str]:
    """Return Chinese fonts installed since matplotlib listed the fonts, which it does once."""
    folders = (Path(folder).expanduser() for folder in font_manager.X11FontDirectories)
    paths = (path for folder in folders for path in sorted(folder.rglob("*.[ot]t[cf]")))
    for path in paths:
        if _CHINESE_FILES.match(path.name):
            font_manager.fontManager.addfont(path)
    return {font.name for font in font_manager.fontManager.ttflist}


@cache
def _tell_missing() -> None:
    log.warning(
        "Pictures show some characters by their codes: no font here has them. "
        "Debian's fonts-noto-cjk has Chinese."
    )


@cache
def _paths() -> list[str]:
    return [font_manager.findfont(family) for family in _families()]


@cache
def _has_glyph(code: int) -> bool:
    return any(font_manager.get_font(path).get_char_index(code) for path in _paths())
