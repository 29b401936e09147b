"""All figures of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crosstune.reporting.cells import Table
from crosstune.reporting.figures.curves import draw_curves
from crosstune.reporting.figures.pareto import MEMORY, PARAMETERS, SECONDS, draw_pareto
from crosstune.reporting.figures.scores import draw_scores
from crosstune.reporting.figures.style import Drawing
from crosstune.reporting.records import Run


@dataclass(frozen=True)
class Drawings:
    """The figures of a report; None where a study has no data for one."""

    scores: Drawing
    pareto: Drawing | None
    pareto_memory: Drawing | None
    pareto_time: Drawing | None
    curves: Drawing | None


def draw_all(table: Table, runs: Sequence[Run], folders: Mapping[str, Path]) -> Drawings:
    """Return the figures of a table, of one row per run, and of the metrics in their folders."""
    return Drawings(
        scores=draw_scores(table),
        pareto=draw_pareto(table, PARAMETERS),
        pareto_memory=draw_pareto(table, MEMORY),
        pareto_time=draw_pareto(table, SECONDS),
        curves=draw_curves(runs, folders),
    )
