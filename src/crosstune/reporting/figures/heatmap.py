"""Heat maps of a study: mean test score by method and language, shaded.

Takes the cells of its table; `page.py` shows the maps as tables, so that the numbers can be read.
"""

import math
from collections import defaultdict
from typing import Any

from crosstune.reporting.cells import ABSENT, Table

_SHADES = 9


def build_heat(table: Table) -> list[dict[str, Any]]:
    """Return a map for each metric that was tested in several languages, with its text and shades.

    Rows are the table's, columns languages with the data sets that they are tested on.
    """
    found: dict[str, dict[Any, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for cell in table.cells:
        if cell.split == "test" and not math.isnan(cell.mean):
            column = cell.language, cell.dataset, cell.train_language
            found[cell.metric][column][cell.row] = cell.mean
    return [
        _shade(table, metric, columns)
        for metric, columns in sorted(found.items())
        if len({language for language, *_ in columns}) > 1
    ]


def _shade(table: Table, metric: str, columns: dict[Any, dict[int, float]]) -> dict[str, Any]:
    scores = [score for column in columns.values() for score in column.values()]
    low, span = min(scores), max(scores) - min(scores)
    ordered = sorted(columns)
    rows = sorted({row for column in columns.values() for row in column})
    return {
        "metric": metric,
        "range": f"{100 * low:.1f} to {100 * (low + span):.1f}",
        "headers": [_name(*column) for column in ordered],
        "rows": [
            {
                "label": table.rows[row][0],
                "cells": [_cell(columns[column].get(row), low, span) for column in ordered],
            }
            for row in rows
        ],
    }


def _name(language: str, dataset: str, train_language: str) -> str:
    return f"{language} · {dataset}" + f" from {train_language}" * (train_language != language)


def _cell(score: float | None, low: float, span: float) -> dict[str, Any]:
    if score is None:
        return {"text": ABSENT, "shade": 0}
    shade = round(_SHADES * (score - low) / span) if span else 0
    return {"text": f"{100 * score:.1f}", "shade": shade}
