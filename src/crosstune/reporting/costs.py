"""What the arms of a study cost: means, and how a cost is printed.

The names are those of a record, with spaces; `tables.py`, `page.py` and `pareto.py` call it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ABSENT = "–"


def show_cost(name: str, value: float) -> str:
    """Return a cost as text: whole counts, seconds and rates to one decimal, bytes in MiB.

    What is less than one keeps two digits, so that a small cost is not shown as none.

    >>> show_cost("trainable_parameters", 1234567), show_cost("peak_memory_bytes", 3 * 2**20)
    ('1,234,567', '3.0')
    >>> show_cost("optimizer_bytes", 9000)
    '0.0086'
    """
    if math.isnan(value):
        return ABSENT
    if name.endswith(("_parameters", "_flops_per_token")):
        return f"{value:,.0f}"
    shown = value / 2**20 if name.endswith("_bytes") else value
    return f"{shown:.2g}" if 0 < shown < 1 else f"{shown:,.1f}"


def name_cost(name: str) -> str:
    """Return a record's name of a cost as a header.

    >>> name_cost("peak_memory_bytes"), name_cost("train_tokens_per_second")
    ('peak memory MiB', 'train tokens per second')
    """
    return name.replace("_bytes", "_MiB").replace("_", " ")


def average_costs(
    cells: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> dict[int, dict[str, float]]:
    """Return the mean of each cost over a row's data sets; NaN where none measured it.

    A data set counts once, however many languages it was tested in.
    """
    values: dict[int, dict[str, dict[tuple[str, str], float]]] = defaultdict(
        lambda: {name: {} for name in names}
    )
    for cell in cells:
        place = (cell["dataset"], cell["train_language"])
        for name in names:
            by_place = values[cell["row"]][name]
            if not math.isnan(cell[name]):
                by_place[place] = cell[name]
    return {
        row: {
            name: math.fsum(found.values()) / len(found) if found else math.nan
            for name, found in costs.items()
        }
        for row, costs in values.items()
    }
