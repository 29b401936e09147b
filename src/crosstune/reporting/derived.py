"""The tables that follow from a study's own: its costs, and its differences to the baseline.

`report.py` calls it and writes what `tables.py` renders of them.
"""

import math
from dataclasses import replace

from crosstune.reporting.comparison import Comparison, count_tests, show_difference
from crosstune.reporting.costs import ABSENT, average_costs, name_cost, show_cost
from crosstune.reporting.csv import render_lines
from crosstune.reporting.records import COSTS
from crosstune.reporting.tables import ARM_KEY, Table, key_of, plain_number


def build_costs(table: Table) -> Table:
    """Return the table of every cost that some arm of a study measured.

    `cells` has the row's model, method and arm, and its costs in full under their names.
    """
    means = average_costs(table.cells, COSTS)
    names = [cost for cost in COSTS if any(not math.isnan(costs[cost]) for costs in means.values())]
    arms = {cell["row"]: key_of(cell, ARM_KEY) for cell in table.cells}
    return replace(
        table,
        caption=f"{table.experiment}: costs, means over finished runs, then over data sets.",
        headers=(table.headers[0], *map(name_cost, names)),
        rows=tuple(
            (line[0], *(show_cost(name, means[row][name]) for name in names))
            for row, line in enumerate(table.rows)
        ),
        notes=(
            "Embeddings are the tables of tokens, positions and segments; head and adapter are "
            "trained. Rates leave warm-up batches out. A token is a sub-word that is no padding. "
            "Operations (FLOPs) are those of matrix products, measured on one batch, "
            "its padding included; training is forward and backward.",
            "Peak memory on a GPU is that of the device's tensors, on a CPU the resident set of "
            "the whole process, libraries among it. – was not measured.",
        ),
        cells=[dict(zip(ARM_KEY, arms[row], strict=True)) | means[row] for row in sorted(arms)],
    )


def render_costs(costs: Table) -> str:
    """Return a table of costs as CSV, under the names of a record, one line per arm."""
    names = (*ARM_KEY, *COSTS)
    return render_lines(names, ([plain_number(row[name]) for name in names] for row in costs.cells))


def build_differences(table: Table, comparison: Comparison) -> Table | None:
    """Return the differences of a study to its baseline, or None where no seed is paired.

    Rows are the arms that have one, columns those of the study's table. `cells` is unchanged but
    for `row`, which is the position here.
    """
    cells = [dict(cell) for cell in table.cells if cell["difference_seeds"]]
    if not cells:
        return None
    kept = sorted({cell["row"] for cell in cells})
    row_of = {row: position for position, row in enumerate(kept)}
    lines = [[table.rows[row][0], *[ABSENT] * len(table.columns)] for row in kept]
    for cell in cells:
        cell["row"] = row_of[cell["row"]]
        lines[cell["row"]][1 + cell["column"]] = show_difference(cell, ABSENT)
    groups = (
        (name, tuple(row_of[row] for row in rows if row in row_of)) for name, rows in table.groups
    )
    base, rule, mark = comparison.baseline, comparison.rule, comparison.demand
    return replace(
        table,
        caption=f"{table.experiment}: differences to {base} in percentage points, seed by seed: "
        f"mean [{comparison.percent} interval] p after Holm over {count_tests(cells)} differences "
        f"(number of seeds that both finished). Intervals and p from {rule.to_print} seeds on; "
        f"* where {mark}.",
        headers=table.headers[: 1 + len(table.columns)],
        rows=tuple(map(tuple, lines)),
        notes=(
            "An interval is a t interval over seeds, and so about other seeds on the same test "
            "items, not about other test items.",
        ),
        cells=cells,
        flags=(),
        groups=tuple((name, rows) for name, rows in groups if rows),
    )
