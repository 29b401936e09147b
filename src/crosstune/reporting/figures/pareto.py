"""Figures of score against a cost: trainable parameters, memory or time, with the Pareto front.

One panel per column of the table, and per group of equal conditions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from crosstune.reporting.cells import Cell, Table
from crosstune.reporting.figures.scores import MAX_ARMS
from crosstune.reporting.figures.style import (
    BLUE,
    COLOURS,
    GREY,
    Drawing,
    add_legend,
    make_panels,
    render_drawing,
    set_round_ticks,
    styled,
    wrap_label,
)

MAX_NAMED = 12  # arms that are named in a panel
_MARKERS = "os^DvP*X<>ph"


class Cost(NamedTuple):
    """A cost for the x axis: its name in a record, and what it is divided by for the axis."""

    name: str
    title: str
    unit: float = 1.0
    logarithmic: bool = False
    panels: int = 2  # at most


PARAMETERS = Cost("trainable_parameters", "trainable parameters", logarithmic=True, panels=4)
MEMORY = Cost("peak_memory_bytes", "peak memory of training, MiB", 2.0**20)
SECONDS = Cost("train_seconds", "seconds of training")


@dataclass(frozen=True)
class ParetoArm:
    """An arm in a panel: its cost, and its mean score in percentage points."""

    name: str
    cost: float
    score: float
    full: bool = False  # full fine-tuning, always named


def find_front(arms: Sequence[ParetoArm]) -> list[ParetoArm]:
    """Return the Pareto front by growing cost: the arms that no other beats in cost and score.

    Of equal arms only the first is returned.

    >>> [arm.name for arm in find_front(list(map(ParetoArm, "abc", (9, 5, 7), (80, 70, 60))))]
    ['b', 'a']
    """
    front: list[ParetoArm] = []
    for arm in sorted(arms, key=lambda arm: (arm.cost, -arm.score)):
        if not front or arm.score > front[-1].score:
            front.append(arm)
    return front


def draw_pareto(table: Table, cost: Cost = PARAMETERS) -> Drawing | None:
    """Return score against a cost, or None if nothing can be drawn.

    A marker is an arm's mean over seeds; the stepped line is the Pareto front. Up to 12 arms are
    named, the best first: those of the front, full fine-tuning and the next best; others are grey.
    At most `cost.panels` panels are drawn.
    """
    panels = [panel for panel in _list_panels(table, cost) if panel[1]]
    if not panels:
        return None
    shown = panels[: cost.panels]
    names = dict.fromkeys(arm.name for _, arms in shown for arm in choose_named(arms))
    markers = dict(zip(names, zip(cycle(_MARKERS), cycle(COLOURS)), strict=False))
    with styled():
        figure, all_axes = make_panels(len(shown), 2, size=(220, 150), gap=(210, 70))
        for axes, (title, arms) in zip(all_axes, shown, strict=True):
            axes.set(title=wrap_label(title, 60), xlabel=cost.title)
            _set_axes(axes, arms, cost)
            _draw_arms(axes, arms, markers)
        return render_drawing(figure, _describe_cut(panels, shown))


def _set_axes(axes: Axes, arms: Sequence[ParetoArm], cost: Cost) -> None:
    costs = [arm.cost for arm in arms]
    set_round_ticks(axes, "y", [arm.score for arm in arms])
    if not cost.logarithmic:
        set_round_ticks(axes, "x", costs, math.inf)
        return
    low = math.floor(math.log10(min(costs)))
    high = max(math.ceil(math.log10(max(costs))), low + 1)
    axes.set(xscale="log", xlim=(10.0**low, 10.0**high))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.minorticks_off()


def _draw_arms(
    axes: Axes, arms: Sequence[ParetoArm], markers: Mapping[str, tuple[str, str]]
) -> None:
    """Draw the front and every arm; `markers` are shapes and colours by the name of an arm."""
    front = find_front(arms)
    x, y = [arm.cost for arm in front], [arm.score for arm in front]
    axes.step([*x, axes.get_xlim()[1]], [*y, y[-1]], where="post", color=BLUE, linewidth=1.2)
    named = [arm.name for arm in choose_named(arms)]
    handles = {}
    for arm in arms:
        marker, colour = markers[arm.name] if arm.name in named else (".", GREY)
        style = {"marker": marker, "color": colour, "markersize": 5, "linestyle": "none"}
        (handles[arm.name],) = axes.plot(arm.cost, arm.score, clip_on=False, **style)
    add_legend(axes, [handles[name] for name in named], named)


def _describe_cut(panels: Sequence[Any], shown: Sequence[tuple[str, Sequence[ParetoArm]]]) -> str:
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
    named = {arm.name for arm in first[:MAX_NAMED]}
    return [arm for arm in ranked if arm.name in named]


def _list_panels(table: Table, cost: Cost) -> list[tuple[str, list[ParetoArm]]]:
    """Return title and arms of each panel, at most 40 arms of it."""
    cells = table.cells
    groups = table.groups or (("", tuple(range(len(table.rows)))),)
    panels = []
    for column, title in enumerate(table.columns):
        for name, rows in groups:
            arms = [
                _make_arm(table, cell, cost)
                for cell in cells
                if cell.column == column and cell.row in rows and _has_point(cell, cost)
            ]
            panels.append((f"{title} · {name}" if name else title, arms[:MAX_ARMS]))
    return panels


def _has_point(cell: Cell, cost: Cost) -> bool:
    return bool(cell.n) and cell.costs[cost.name] > 0  # also false for NaN


def _make_arm(table: Table, cell: Cell, cost: Cost) -> ParetoArm:
    label = table.rows[cell.row][0].removesuffix(f" {{{cell.conditions}}}")
    return ParetoArm(
        label, cell.costs[cost.name] / cost.unit, 100 * cell.mean, cell.method == "full"
    )
