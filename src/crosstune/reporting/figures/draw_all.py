"""All figures of a report; `drawing.py` calls it in a process of its own, which begets another."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib.backends.backend_agg  # both loaded here, before there is anything to draw
import matplotlib.backends.backend_svg  # noqa: F401

from crosstune.reporting.cells import Table
from crosstune.reporting.figures.curves import draw_curves
from crosstune.reporting.figures.drawing import Drawings
from crosstune.reporting.figures.pareto import MEMORY, PARAMETERS, SECONDS, draw_pareto
from crosstune.reporting.figures.scores import draw_scores, styled
from crosstune.reporting.records import Run


def get_ready() -> None:
    """Do what the first figure would wait for: read the style and find the fonts."""
    with styled():
        pass


def draw(table: Table, runs: Sequence[Run], folders: Mapping[str, Path]) -> Drawings:
    """Return the figures of a table, of runs a row each, and of the metrics in their folders.

    The first takes as long as the others, so a copy of this process draws it meanwhile.
    """
    with ProcessPoolExecutor(1) as pool:
        scores = pool.submit(draw_scores, table)
        costs = (draw_pareto(table, cost) for cost in (PARAMETERS, MEMORY, SECONDS))
        pareto, pareto_memory, pareto_time = costs
        curves = draw_curves(runs, folders)
        return Drawings(scores.result(), pareto, pareto_memory, pareto_time, curves)
