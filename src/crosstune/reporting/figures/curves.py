"""Learning curves: the headline validation score by step, averaged over seeds.

Reads `metrics.jsonl` of the finished runs that no later run replaces. One panel per data set,
training language and model.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes

from crosstune.reporting.figures.style import (
    COLOURS,
    Drawing,
    add_legend,
    make_panels,
    render_drawing,
    set_round_ticks,
    styled,
    wrap_label,
)
from crosstune.reporting.records import Run

Curve = list[tuple[int, float]]

MAX_PANELS, MAX_LINES = 6, 8
_KEY = "validation/headline"
_LINES = ("-", "--", ":", "-.")


def read_curve(path: Path) -> Curve:
    """Return the headline score on validation by step; lines without one are skipped."""
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
    """Return the mean over the runs at each step at which all of them were validated.

    >>> average_curves([[(1, 0.5), (2, 0.75)], [(1, 0.25)]])
    [(1, 0.375)]
    """
    steps = [dict(curve) for curve in curves]
    shared = sorted(set(steps[0]).intersection(*steps[1:])) if steps else []
    return [(step, fmean(curve[step] for curve in steps)) for step in shared]


def draw_curves(runs: Sequence[Run], folders: Mapping[str, Path]) -> Drawing | None:
    """Return the learning curves, or None if no arm was validated twice.

    `runs` holds one row per run; metrics.jsonl is read in the folder of its run_id. Scores are in
    percentage points. At most 6 panels are drawn, and in each the 8 arms that end highest.
    """
    panels = _average_runs(runs, folders)
    if not panels:
        return None
    shown = [(title, dict(list(arms.items())[:MAX_LINES])) for title, arms in panels.items()]
    shown = shown[:MAX_PANELS]
    names = dict.fromkeys(name for _, curves in shown for name in curves)
    pairs = ((colour, line) for line in _LINES for colour in COLOURS)
    styles = dict(zip(names, cycle(pairs), strict=False))  # the same in every panel
    with styled():
        figure, all_axes = make_panels(len(shown), 2, size=(220, 120), gap=(210, 70))
        for axes, (title, curves) in zip(all_axes, shown, strict=True):
            axes.set(title=wrap_label(title, 60), xlabel="step")
            _draw_panel(axes, curves, styles)
        return render_drawing(figure, _describe_cut(panels))


def _draw_panel(
    axes: Axes, curves: Mapping[str, Curve], styles: Mapping[str, tuple[str, str]]
) -> None:
    handles, scores = [], []
    for name, curve in curves.items():
        colour, line = styles[name]
        x, y = [step for step, _ in curve], [100 * score for _, score in curve]
        handles += axes.plot(x, y, color=colour, linestyle=line, linewidth=1.4)
        scores += y
    last = max(curve[-1][0] for curve in curves.values()) or 1
    axes.set_xticks([0, last], ["0", f"{last:,}"])
    axes.set_xlim(0, last)
    set_round_ticks(axes, "y", scores)
    add_legend(axes, handles, list(curves))


def _average_runs(runs: Sequence[Run], folders: Mapping[str, Path]) -> dict[str, dict[str, Curve]]:
    """Return the curve of each arm, those that end highest first, by the panel's title."""
    curves: dict[str, dict[str, list[Curve]]] = defaultdict(lambda: defaultdict(list))
    several = len({run["model"] for run in runs}) > 1
    for run in runs:
        if run["status"] == "finished" and not run["superseded_by"]:
            title = f"{run['dataset']} {run['train_language']} {run['headline']}"
            title += f" · {run['model']}" if several else ""
            curve = read_curve(folders[run["run_id"]] / "metrics.jsonl")
            curves[title][run["arm"]].append(curve)
    panels = {}
    for title, arms in sorted(curves.items()):
        means = {arm: average_curves(runs_of_arm) for arm, runs_of_arm in arms.items()}
        drawn = {arm: curve for arm, curve in means.items() if len(curve) > 1}
        if drawn:
            panels[title] = dict(sorted(drawn.items(), key=lambda item: -item[1][-1][1]))
    return panels


def _describe_cut(panels: Mapping[str, Mapping[str, Curve]]) -> str:
    parts = [f"The first {MAX_PANELS} of {len(panels)} panels."] * (len(panels) > MAX_PANELS)
    if any(len(curves) > MAX_LINES for curves in panels.values()):
        parts.append(f"Of more than {MAX_LINES} arms, those that end highest.")
    return " ".join(parts)
