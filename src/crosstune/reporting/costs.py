"""What the arms of a study cost: means over runs, how a cost is printed, and the table of costs."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from crosstune.reporting.cells import NOT_MEASURED, Cell, Table
from crosstune.reporting.render import drop_points, render_csv
from crosstune.runs.record_schema import COSTS

_ARM = ("model", "method", "arm")


def render_cost(name: str, value: float) -> str:
    """Return a cost as text: whole counts, seconds and rates to one decimal, bytes in MiB.

    A value below one keeps two significant digits, so that a small cost does not look like 0.

    >>> render_cost("trainable_parameters", 1234567), render_cost("peak_memory_bytes", 3 * 2**20)
    ('1,234,567', '3.0')
    >>> render_cost("optimizer_bytes", 9000)
    '0.0086'
    """
    if math.isnan(value):
        return NOT_MEASURED
    if name.endswith(("_parameters", "_flops_per_token")):
        return f"{value:,.0f}"
    shown = value / 2**20 if name.endswith("_bytes") else value
    return f"{shown:.2g}" if 0 < shown < 1 else f"{shown:,.1f}"


def name_cost(name: str) -> str:
    """Return a cost's name in a record as a header.

    >>> name_cost("peak_memory_bytes"), name_cost("train_tokens_per_second")
    ('peak memory MiB', 'train tokens per second')
    """
    return name.replace("_bytes", "_MiB").replace("_", " ")


def average_costs(cells: Iterable[Cell], names: Sequence[str]) -> dict[int, dict[str, float]]:
    """Return the mean of each cost over a row's data sets; NaN where none measured it.

    A data set counts once, however many languages it was tested in.
    """
    by_dataset: dict[int, dict[tuple[str, str], Cell]] = defaultdict(dict)
    for cell in cells:
        by_dataset[cell.row][cell.dataset, cell.train_language] = cell
    means: dict[int, dict[str, float]] = defaultdict(dict)
    for row, members in by_dataset.items():
        for name in names:
            costs = [cell.costs[name] for cell in members.values()]
            measured = [cost for cost in costs if not math.isnan(cost)]
            means[row][name] = fmean(measured) if measured else math.nan
    return means


def build_costs(table: Table) -> Table:
    """Return the table of every cost that some arm of a study measured, from the study's table."""
    means = average_costs(table.cells, COSTS)
    names = [cost for cost in COSTS if any(not math.isnan(costs[cost]) for costs in means.values())]
    arms = {cell.row: {name: getattr(cell, name) for name in _ARM} for cell in table.cells}
    return Table(
        experiment=table.experiment,
        caption=f"{table.experiment}: costs, means over finished runs, then over data sets.",
        headers=(table.headers[0], *map(name_cost, names)),
        rows=tuple(
            (line[0], *(render_cost(name, means[row][name]) for name in names))
            for row, line in enumerate(table.rows)
        ),
        notes=(
            "Embeddings are the tables of tokens, positions and segments; head and adapter are "
            "trained. Rates leave warm-up batches out. A token is a sub-word that is no padding. "
            "Operations (FLOPs) are those of matrix products, measured on one batch, "
            "its padding included; training is forward and backward.",
            "Peak memory on a GPU is that of the device's tensors, on a CPU the resident set of "
            f"the whole process, libraries among it. {NOT_MEASURED} was not measured.",
        ),
        numbers=tuple(drop_points(arms[row] | means[row]) for row in sorted(arms)),
        flags=table.flags,
        groups=table.groups,
    )


def render_costs(costs: Table) -> str:
    """Return a table of costs as CSV, under the names of a record, one line per arm."""
    return render_csv((*_ARM, *COSTS), costs.numbers)
