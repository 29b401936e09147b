"""Learning curves of a study: the headline score on validation by step, mean over seeds.

Reads metrics.jsonl of the runs that count, and draws one panel per data set and train language.
`report.py` calls it and writes what it returns.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.collections import LineCollection

from crosstune.reporting.figures.drawing import INK, Drawing
from crosstune.reporting.figures.scores import (
    Point,
    fold,
    open_axes,
    render_drawing,
    round_ticks,
    styled,
    write_text,
)
from crosstune.reporting.records import Run

Curve = list[tuple[int, float]]

MAX_PANELS, MAX_LINES = 6, 8
_KEY = "validation/headline"  # as `learner.py` logs it
_COLOURS = ("#2f7fc1", "#d1651f", "#2c9a5b", "#b5459b", "#8a7a1c", "#c23b4b", "#5a6fd0", "#6f7780")
_WIDE, _WIDTH, _HIGH, _LEFT, _NAMES, _LINE = 2, 190, 110, 40, 170, 11  # points, but for _WIDE


def read_curve(path: Path) -> Curve:
    """Return the headline score on validation by step; a line that tells of none is passed over."""
    curve = {}
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        if _KEY.encode() in line:
            try:
                logged = json.loads(line)
                step, score = logged["step"], logged[_KEY]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if type(step) is int and type(score) in (int, float) and math.isfinite(score):
                curve[min(step, 2**53)] = max(-9.0, min(float(score), 9.0))
    return sorted(curve.items())


def average_curves(curves: Sequence[Curve]) -> Curve:
    """Return the mean over the runs at each step that all of them were validated at.

    >>> average_curves([[(1, 0.5), (2, 0.75)], [(1, 0.25)]])
    [(1, 0.375)]
    """
    steps = [dict(curve) for curve in curves]
    shared = sorted(set(steps[0]).intersection(*steps[1:])) if steps else []
    return [(step, fmean(curve[step] for curve in steps)) for step in shared]


def draw_curves(runs: Sequence[Run], folders: Mapping[str, Path]) -> Drawing | None:
    """Return the learning curves, or None where no arm was validated twice.

    `runs` holds one row per run; metrics.jsonl is read in the folder of its run_id. Scores are in
    percentage points. At most 6 panels are drawn, and in each the 8 arms that end highest.
    """
    panels = _gather(runs, folders)
    if not panels:
        return None
    shown = dict(list(panels.items())[:MAX_PANELS])
    wide = min(_WIDE, len(shown))
    step = (_LEFT + _WIDTH + _NAMES, _HIGH + 60)
    with styled():
        figure, axes = open_axes(wide * step[0], -(-len(shown) // wide) * step[1])
        for number, (title, curves) in enumerate(shown.items()):
            corner = (number % wide) * step[0] + _LEFT, (number // wide) * step[1] + 26
            _draw_panel(axes, corner, title, curves)
        return render_drawing(figure, _cut(panels))


def _gather(runs: Sequence[Run], folders: Mapping[str, Path]) -> dict[str, dict[str, Curve]]:
    """Return the curve of each arm, those that end highest first, by the panel's title."""
    found: dict[str, dict[str, list[Curve]]] = defaultdict(lambda: defaultdict(list))
    several = len({run["model"] for run in runs}) > 1
    for run in runs:
        if run["status"] == "finished" and not run["superseded_by"]:
            title = f"{run['dataset']} {run['train_language']} {run['headline']}"
            title += f" · {run['model']}" * several
            curve = read_curve(folders[run["run_id"]] / "metrics.jsonl")
            found[title][run["arm"]].append(curve)
    panels = {}
    for title, arms in sorted(found.items()):
        means = {arm: average_curves(curves) for arm, curves in arms.items()}
        drawn = {arm: curve for arm, curve in means.items() if len(curve) > 1}
        if drawn:
            panels[title] = dict(sorted(drawn.items(), key=lambda item: -item[1][-1][1]))
    return panels


def _draw_panel(axes: Any, corner: Point, title: str, curves: Mapping[str, Curve]) -> None:
    (left, top), bottom = corner, corner[1] + _HIGH
    shown = dict(list(curves.items())[:MAX_LINES])
    last = max(curve[-1][0] for curve in shown.values()) or 1
    ticks = round_ticks([100 * score for curve in shown.values() for _, score in curve])
    low, high = ticks[0], ticks[-1]

    def place(step: float, score: float) -> Point:
        return left + _WIDTH * step / last, bottom - _HIGH * (score - low) / (high - low)

    write_text(axes, (left + _WIDTH / 2, top - 6), fold(title, 60), ha="center", va="bottom")
    write_text(axes, (left + _WIDTH / 2, bottom + 15), "step", ha="center", va="top")
    for step, side in ((0, "left"), (last, "right")):
        write_text(axes, (place(step, low)[0], bottom + 4), f"{step:,}", ha=side, va="top")
    for tick in ticks:
        write_text(axes, (left - 4, place(0, tick)[1]), f"{tick:g}", ha="right", va="center")
    grid = [[place(0, tick), place(last, tick)] for tick in ticks[1:]]
    _add(axes, grid, INK, linewidths=0.6, alpha=0.15)
    _add(axes, [[(left, top), (left, bottom), (left + _WIDTH, bottom)]], INK, linewidths=0.8)
    y = top - _LINE
    for (arm, curve), colour in zip(shown.items(), _COLOURS, strict=False):
        points = [place(step, 100 * score) for step, score in curve]
        end = points[-1][1]
        y = max(end, y + _LINE)
        name = (left + _WIDTH + 14, y)
        _add(axes, [points], colour, linewidths=1.4)
        _add(axes, [[points[-1], (name[0] - 3, y)]], colour, linewidths=0.5, alpha=0.5)
        write_text(axes, name, fold(arm, 30).split("\n")[0], va="center", color=colour)


def _add(axes: Any, lines: Sequence[Sequence[Point]], color: str, **style: Any) -> None:
    axes.add_collection(LineCollection(lines, colors=color, **style), autolim=False)


def _cut(panels: Mapping[str, Mapping[str, Curve]]) -> str:
    cut = [f"The first {MAX_PANELS} of {len(panels)} panels."] * (len(panels) > MAX_PANELS)
    if any(len(curves) > MAX_LINES for curves in panels.values()):
        cut.append(f"Of more than {MAX_LINES} arms, those that end highest.")
    return " ".join(cut)
