"""Figures of score against a cost (trainable parameters, memory, time), with the front of the best.

One panel per column of the table (and per group of equal conditions). `gallery.py` calls it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from crosstune.reporting.cells import Cell, Table
from crosstune.reporting.figures.drawing import INK, Drawing
from crosstune.reporting.figures.scores import (
    DOT,
    MAX_ARMS,
    Point,
    fold,
    open_axes,
    render_drawing,
    round_ticks,
    styled,
    write_text,
)

_WIDE = 2  # panels in a row
_WIDTH, _NAMES, _LEFT = 190, 170, 40  # points: a plot, the names to its right, its ticks
_LINE = 11  # points that a name takes
MAX_NAMED = 12  # arms that are named in a panel


class Cost(NamedTuple):
    """What stands on the x axis: a cost of the records, in `unit` of theirs."""

    name: str
    title: str
    unit: float = 1.0
    powers: bool = False  # the axis is logarithmic
    panels: int = 2  # at most: their names take most of a report's time


PARAMETERS = Cost("trainable_parameters", "trainable parameters", powers=True, panels=4)
MEMORY = Cost("peak_memory_bytes", "peak memory of training, MiB", 2.0**20)
SECONDS = Cost("train_seconds", "seconds of training")


@dataclass(frozen=True)
class ParetoArm:
    """An arm in a panel: what it costs, and its mean score in percentage points."""

    name: str
    cost: float
    score: float
    full: bool = False  # full fine-tuning, what the others are measured against


def find_front(arms: Sequence[ParetoArm]) -> list[ParetoArm]:
    """Return the arms that no other beats: none costs as little and scores more.

    They come with growing costs and growing scores; of equal arms the first stands for all.

    >>> [arm.name for arm in find_front([ParetoArm("a", 9, 80), Arm("b", 5, 70), Arm("c", 7, 60)])]
    ['b', 'a']
    """
    front: list[ParetoArm] = []
    for arm in sorted(arms, key=lambda arm: (arm.cost, -arm.score)):
        if not front or arm.score > front[-1].score:
            front.append(arm)
    return front


def draw_pareto(table: Table, cost: Cost = PARAMETERS) -> Drawing | None:
    """Return score against a cost, or None if nothing can be drawn.

    A dot is an arm's mean over seeds; the stepped line joins the arms that no other beats, which
    are named in ink like full fine-tuning, the others grey. Arms are named at the right of a panel,
    the best on top; of many these and the next best are. At most `cost.panels` are drawn.
    """
    panels = [panel for panel in _gather(table, cost) if panel[1]]
    if not panels:
        return None
    shown = panels[: cost.panels]
    tallest = max(len(choose_named(arms)) for _, arms in shown)
    high = max(130, _LINE * tallest)
    step = (_LEFT + _WIDTH + _NAMES, high + 70)
    wide = min(_WIDE, len(shown))
    with styled():
        figure, axes = open_axes(wide * step[0], -(-len(shown) // wide) * step[1])
        for number, (title, arms) in enumerate(shown):
            x, y = (number % wide) * step[0] + _LEFT, (number // wide) * step[1] + 30
            _Panel(axes, (x, y), high, arms, cost).draw(title)
        return render_drawing(figure, _cut(panels, shown))


def _cut(panels: Sequence[Any], shown: Sequence[tuple[str, Sequence[ParetoArm]]]) -> str:
    parts = [f"The first {len(shown)} of {len(panels)} panels."] * (len(panels) > len(shown))
    if any(len(choose_named(arms)) < len(arms) for _, arms in shown):
        parts.append("Not every dot is named; the table holds all.")
    return " ".join(parts)


def choose_named(arms: Sequence[ParetoArm]) -> list[ParetoArm]:
    """Return the arms that are named, the best first: the front, full fine-tuning, the next best.

    >>> arms = [ParetoArm(f"arm{i}", i, -i) for i in range(1, 30)]
    >>> [arm.name for arm in choose_named([*arms, ParetoArm("full", 99, -99, full=True)])][::11]
    ['arm1', 'full']
    """
    front = {arm.name for arm in find_front(arms)}
    ranked = sorted(arms, key=lambda arm: -arm.score)
    first = sorted(ranked, key=lambda arm: not (arm.full or arm.name in front))
    kept = {arm.name for arm in first[:MAX_NAMED]}
    return [arm for arm in ranked if arm.name in kept]


def _gather(table: Table, cost: Cost) -> list[tuple[str, list[ParetoArm]]]:
    """Return title and arms of each panel, at most 40 arms of it."""
    cells = table.cells
    groups = table.groups or (("", tuple(range(len(table.rows)))),)
    panels = []
    for column, title in enumerate(table.columns):
        for name, rows in groups:
            arms = [
                _arm(table, cell, cost)
                for cell in cells
                if cell.column == column and cell.row in rows and _drawable(cell, cost)
            ]
            panels.append((f"{title} · {name}" if name else title, arms[:MAX_ARMS]))
    return panels


def _drawable(cell: Cell, cost: Cost) -> bool:
    return bool(cell.n) and cell.costs[cost.name] > 0  # also false for NaN


def _arm(table: Table, cell: Cell, cost: Cost) -> ParetoArm:
    label = table.rows[cell.row][0].removesuffix(f" {{{cell.conditions}}}")
    return ParetoArm(
        label, cell.costs[cost.name] / cost.unit, 100 * cell.mean, cell.method == "full"
    )


class _Panel:
    """One plot, laid out in points on the figure's axes."""

    def __init__(
        self, axes: Any, corner: Point, high: float, arms: Sequence[ParetoArm], cost: Cost
    ) -> None:
        self.axes, self.corner, self.high, self.arms, self.cost = axes, corner, high, arms, cost
        costs = [arm.cost for arm in arms]
        self.steps = _powers(costs) if cost.powers else round_ticks(costs, math.inf)
        self.ticks = round_ticks([arm.score for arm in arms])

    def place(self, cost: float, score: float) -> Point:
        """Return where a value stands on the figure."""
        ends = cost, self.steps[0], self.steps[-1]
        value, low, top = map(math.log10, ends) if self.cost.powers else ends
        across = (value - low) / (top - low)
        up = (score - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.corner[0] + _WIDTH * across, self.corner[1] + self.high * (1 - up)

    def draw(self, title: str) -> None:
        """Draw axes, dots, front and names."""
        (left, top), bottom = self.corner, self.corner[1] + self.high
        self._write(left + _WIDTH / 2, top - 8, fold(title, 60), ha="center", va="bottom")
        self._write(left + _WIDTH / 2, bottom + 16, self.cost.title, ha="center", va="top")
        rules = [[(left, bottom), (left + _WIDTH, bottom)], [(left, top), (left, bottom)]]
        grid = []
        for step in self.steps:
            x, _ = self.place(step, self.ticks[0])
            grid.append([(x, top), (x, bottom)])
            text = _name_power(step) if self.cost.powers else f"{step:g}"
            self._write(x, bottom + 4, text, ha="center", va="top")
        for tick in self.ticks:
            _, y = self.place(self.steps[0], tick)
            grid.append([(left, y), (left + _WIDTH, y)])
            self._write(left - 4, y, f"{tick:g}", ha="right", va="center")
        self._lines(rules, INK, linewidths=0.8)
        self._lines(grid, INK, linewidths=0.6, alpha=0.15)
        front = find_front(self.arms)
        self._lines([self._steps(front)], DOT, linewidths=1.2)
        points = [self.place(arm.cost, arm.score) for arm in self.arms]
        dots = {"marker": "o", "color": DOT, "markersize": 5, "linestyle": "none"}
        self.axes.add_line(Line2D([x for x, _ in points], [y for _, y in points], **dots))
        self._name(front)

    def _steps(self, front: Sequence[ParetoArm]) -> list[Point]:
        """Return the line over all that the front beats: level up to the next better arm."""
        points: list[Point] = []
        for arm in front:
            x, y = self.place(arm.cost, arm.score)
            points += [(x, points[-1][1]), (x, y)] if points else [(x, y)]
        return [*points, (self.corner[0] + _WIDTH, points[-1][1])]

    def _name(self, front: Sequence[ParetoArm]) -> None:
        """Write the names at the right, each led to its dot."""
        x, lowest = self.corner[0] + _WIDTH + 24, self.corner[1] + self.high
        ranked = choose_named(self.arms)
        leads, y = [], self.corner[1] - _LINE
        for below, arm in enumerate(ranked, start=1 - len(ranked)):
            dot = self.place(arm.cost, arm.score)
            y = min(max(dot[1], y + _LINE), lowest + below * _LINE)
            shade = 1.0 if arm.full or arm in front else 0.6
            first, *rest = fold(arm.name, 30).split("\n")
            self._write(x, y, f"{first}…" if rest else first, va="center", alpha=shade)
            leads.append([dot, (x - 3, y)])
        self._lines(leads, INK, linewidths=0.5, alpha=0.35)

    def _lines(self, lines: Sequence[Sequence[Point]], color: str, **style: Any) -> None:
        self.axes.add_collection(LineCollection(lines, colors=color, **style), autolim=False)

    def _write(self, x: float, y: float, text: str, **style: Any) -> None:
        write_text(self.axes, (x, y), text, **style)


def _powers(costs: Sequence[float]) -> list[float]:
    """Return the powers of ten around some costs, two at least."""
    logs = [math.log10(cost) for cost in costs]
    low = math.floor(min(logs))
    return [10.0**power for power in range(low, max(math.ceil(max(logs)), low + 1) + 1)]


def _name_power(value: float) -> str:
    """Return a power of ten as an axis has it.

    >>> [_name_power(value) for value in (100.0, 1e4, 1e6, 1e9)]
    ['100', '10k', '1M', '1G']
    """
    decade = round(math.log10(value))
    return f"{10 ** (decade % 3)}{'kMGTPE'[decade // 3 - 1 : decade // 3] if decade > 2 else ''}"
