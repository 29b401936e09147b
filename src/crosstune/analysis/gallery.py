"""All figures of a report; `drawing.py` calls it in a process of its own."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.backends.backend_agg  # both loaded here, before there is anything to draw
import matplotlib.backends.backend_svg  # noqa: F401

from crosstune.analysis.curves import draw_curves
from crosstune.analysis.drawing import Drawings
from crosstune.analysis.figures import draw_scores, styled
from crosstune.analysis.frame import Rows
from crosstune.analysis.pareto import MEMORY, PARAMETERS, SECONDS, draw_pareto
from crosstune.analysis.tables import Table


def get_ready() -> None:
    """Do what the first figure would wait for: read the style and find the fonts."""
    with styled():
        pass


def draw(table: Table, runs: Rows, folders: Mapping[str, Path]) -> Drawings:
    """Return the figures of a table, of runs a row each, and of the metrics in their folders."""
    return Drawings(
        scores=draw_scores(table),
        pareto=draw_pareto(table, PARAMETERS),
        pareto_memory=draw_pareto(table, MEMORY),
        pareto_time=draw_pareto(table, SECONDS),
        curves=draw_curves(runs, folders),
    )
