"""Heat maps of a study: mean test score by method and language, as shaded tables."""

import math
from collections import defaultdict
from typing import Any

from crosstune.reporting.cells import NOT_MEASURED, Table

_SHADES = 9


def build_heatmaps(table: Table) -> list[dict[str, Any]]:
    """Return a map for each metric that was tested in several languages: texts and shades.

    Rows are the table's; columns are languages, each with the data set of its test.
    """
    scores: dict[str, dict[Any, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for cell in table.cells:
        if cell.split == "test" and not math.isnan(cell.mean):
            column = cell.language, cell.dataset, cell.train_language
            scores[cell.metric][column][cell.row] = cell.mean
    return [
        _build_map(table, metric, columns)
        for metric, columns in sorted(scores.items())
        if len({language for language, *_ in columns}) > 1
    ]


def _build_map(table: Table, metric: str, columns: dict[Any, dict[int, float]]) -> dict[str, Any]:
    scores = [score for column in columns.values() for score in column.values()]
    low, span = min(scores), max(scores) - min(scores)
    ordered = sorted(columns)
    rows = sorted({row for column in columns.values() for row in column})
    return {
        "metric": metric,
        "range": f"{100 * low:.1f} to {100 * (low + span):.1f}",
        "headers": [_name_column(*column) for column in ordered],
        "rows": [
            {
                "label": table.rows[row][0],
                "cells": [_shade(columns[column].get(row), low, span) for column in ordered],
            }
            for row in rows
        ],
    }


def _name_column(language: str, dataset: str, train_language: str) -> str:
    return f"{language} · {dataset}" + f" from {train_language}" * (train_language != language)


def _shade(score: float | None, low: float, span: float) -> dict[str, Any]:
    if score is None:
        return {"text": NOT_MEASURED, "shade": 0}
    shade = round(_SHADES * (score - low) / span) if span else 0
    return {"text": f"{100 * score:.1f}", "shade": shade}
