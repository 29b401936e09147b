"""Rows of values -> CSV text that no spreadsheet runs. `transfer.py` and `errors.py` call it."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from crosstune.reporting.escape import escape_csv


def render_lines(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""Return rows as CSV; tuples are joined by spaces, numbers stand in full, NaN is empty.

    >>> render_lines(["arm", "seeds", "std"], [["=lora", (1, 2), math.nan]])
    "arm,seeds,std\n'=lora,1 2,\n"
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    if isinstance(value, str):
        return escape_csv(value)
    return "" if isinstance(value, float) and math.isnan(value) else value
