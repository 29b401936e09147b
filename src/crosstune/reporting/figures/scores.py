"""The figure of a study: every seed's score and their mean, one panel per column of the table."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from crosstune.reporting.cells import Cell, Table
from crosstune.reporting.figures.style import (
    BLUE,
    TEXT_COLOUR,
    Drawing,
    escape_missing_glyphs,
    make_panels,
    render_drawing,
    set_round_ticks,
    styled,
    wrap_label,
)

MAX_PANELS = 12
MAX_ARMS = 40
_COLUMNS = 4


def draw_scores(table: Table) -> Drawing:
    """Return small multiples of a table: a dot per seed, a stroke at the mean, arms on the y axis.

    Scores are in percentage points. An arm without a finished run has the status of its runs. At
    most 12 columns and 40 arms are drawn.
    """
    arms = [wrap_label(row[0], 46) for row in table.rows[:MAX_ARMS]]
    titles = [wrap_label(column, 30) for column in table.columns[:MAX_PANELS]]
    row_height = 3 + 11 * max((1 + arm.count("\n") for arm in arms), default=1)
    title_height = 11 * max((1 + title.count("\n") for title in titles), default=1)
    size, gap = (150, row_height * (len(arms) or 1)), (24, title_height + 36)
    with styled():
        figure, panels = make_panels(len(titles), _COLUMNS, size, gap)
        for column, (axes, title) in enumerate(zip(panels, titles, strict=True)):
            axes.set_title(title)
            leftmost = column % _COLUMNS == 0
            axes.set_yticks(*((range(len(arms)), arms) if leftmost else ((), ())))
            axes.set_ylim(len(arms) - 0.5, -0.5)
            cells = [cell for cell in table.cells if cell.column == column]
            _draw_panel(axes, [cell for cell in cells if cell.row < MAX_ARMS])
        return render_drawing(figure, _describe_cut(table))


def _draw_panel(axes: Axes, cells: Sequence[Cell]) -> None:
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    scores = [(100 * score, cell.row) for cell in cells for score in cell.scores]
    means = [(100 * cell.mean, cell.row) for cell in cells if cell.scores]
    set_round_ticks(axes, "x", [score for score, _ in scores])
    dots = {"marker": "o", "color": BLUE, "markersize": 4.5, "alpha": 0.7}
    strokes = {"marker": "|", "color": TEXT_COLOUR, "markersize": 10, "markeredgewidth": 1.4}
    for points, style in ((scores, dots), (means, strokes)):
        x, y = [point[0] for point in points], [point[1] for point in points]
        axes.plot(x, y, linestyle="none", clip_on=False, **style)
    for cell in cells:
        if not cell.scores:
            text, position = escape_missing_glyphs(cell.text), axes.get_yaxis_transform()
            axes.text(0.02, cell.row, text, transform=position, va="center", fontsize=6.5)


def _describe_cut(table: Table) -> str:
    counts = ((MAX_PANELS, len(table.columns), "columns"), (MAX_ARMS, len(table.rows), "rows"))
    parts = [f"the first {most} of {count} {what}" for most, count, what in counts if count > most]
    return f"The figure shows {' and '.join(parts)}; the table holds all." if parts else ""
