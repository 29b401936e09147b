"""The comparison table of a study, and its Markdown, LaTeX and CSV forms.

Rows are arms, columns data set x language x headline metric. Every text may come from data, so
each form escapes all of it. Numbers come from `stats.py`; files are written by `report.py`.
"""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from crosstune.analysis.escape import escape_csv, escape_latex, escape_markdown
from crosstune.analysis.frame import Records, list_rows
from crosstune.analysis.notes import list_notes
from crosstune.analysis.stats import UNSCORED, summarise_scores

ABSENT = "–"
COST_HEADERS = ("trainable parameters", "train seconds", "peak memory MiB")
_ROW = ("model", "method", "arm")
_COLUMN = ("dataset", "train_language", "split", "language", "metric")
_CSV = {name: name for name in (*_ROW, *_COLUMN, "mean", "std", "n", "planned", "seeds", *UNSCORED)}
_CSV |= {f"{part}_parameters": f"{part}_parameters" for part in ("trainable", "adapter", "head")}
_CSV |= {
    name: f"{name}_mean" for name in ("train_seconds", "peak_memory_bytes", "checkpoint_bytes")
}


@dataclass(frozen=True)
class Table:
    """A table as plain, unescaped text, with the numbers behind it.

    `headers` and each row are: label, one cell per score column, the three costs. `cells` is
    `summarise_scores` with `row` and `column` (positions in `rows` and `columns`) and `text`.
    """

    experiment: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    cells: pd.DataFrame

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the headers of the score columns."""
        return self.headers[1 : -len(COST_HEADERS)]


def build_table(experiment: str, frame: pd.DataFrame, records: Records) -> Table:
    """Return the table of a study: arms x (data set, language, headline metric), and costs.

    A cell is "mean ± std (n)" in percentage points, "(n of planned)" where seeds are lacking, or
    what became of the runs if none finished. Costs are means over data sets.
    """
    summary = summarise_scores(frame)
    cells = list_rows(summary)
    row_keys = sorted({_key(cell, _ROW) for cell in cells}, key=_natural)
    column_keys = sorted({_key(cell, _COLUMN) for cell in cells}, key=_column_order)
    models = sorted({key[0] for key in row_keys})
    labels = {key: " · ".join(key[:1] * (len(models) > 1) + key[2:]) for key in row_keys}
    row_of, column_of = _positions(row_keys), _positions(column_keys)
    grid = [[ABSENT] * len(column_keys) for _ in row_keys]
    for cell in cells:
        cell["row"], cell["column"] = row_of[_key(cell, _ROW)], column_of[_key(cell, _COLUMN)]
        cell["text"] = grid[cell["row"]][cell["column"]] = _cell_text(cell)
    caption = f"{experiment}: mean ± standard deviation over seeds (number of seeds), in percentage"
    caption += f" points. Model: {models[0]}." if len(models) == 1 else " points."
    costs = _cost_cells(cells)
    return Table(
        experiment=experiment,
        caption=caption,
        headers=(
            "method" if len(models) == 1 else "model · method",
            *(_column_label(key) for key in column_keys),
            *COST_HEADERS,
        ),
        rows=tuple(
            (labels[key], *line, *costs[key]) for key, line in zip(row_keys, grid, strict=True)
        ),
        notes=tuple(list_notes(frame, records, labels)),
        cells=pd.DataFrame(cells, columns=[*summary.columns, "row", "column", "text"]),
    )


def _key(row: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(row[name] for name in names)


def _positions(keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    return {key: position for position, key in enumerate(keys)}


def _natural(key: Sequence[str]) -> list[list[Any]]:
    """Return a sort key by which 20 comes before 100 and 1e-05 before 0.001.

    >>> sorted([("r=16",), ("r=8",), ("r=1e-05",)], key=_natural)
    [('r=1e-05',), ('r=8',), ('r=16',)]
    """
    parts = [re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text) for text in key]
    natural = [[float(part) if i % 2 else part for i, part in enumerate(text)] for text in parts]
    return [*natural, list(key)]  # 1 and 1.0 are told apart at last


def _column_order(key: tuple[str, ...]) -> tuple[Any, ...]:
    dataset, train, split, language, metric = key
    return dataset, metric, train, language != train, language, split


def _column_label(key: tuple[str, ...]) -> str:
    dataset, train, split, language, metric = key
    languages = language if language == train else f"{train}→{language}"
    unusual = "" if split == "test" else f"({split})"
    return " ".join(part for part in (dataset, languages, metric, unusual) if part)


def _cell_text(cell: dict[str, Any]) -> str:
    if not cell["n"]:
        return ", ".join(f"{name} ({cell[name]})" for name in UNSCORED if cell[name]) or ABSENT
    spread = "" if math.isnan(cell["std"]) else f" ± {100 * cell['std']:.1f}"
    seeds = f"{cell['n']} of {cell['planned']}" if cell["n"] < cell["planned"] else str(cell["n"])
    return f"{100 * cell['mean']:.1f}{spread} ({seeds})"


def show_cost(name: str, value: float) -> str:
    """Return a cost as text: whole counts, seconds and rates to one decimal, bytes in MiB.

    >>> show_cost("trainable_parameters", 1234567), show_cost("peak_memory_bytes", 3 * 2**20)
    ('1,234,567', '3.0')
    """
    if math.isnan(value):
        return ABSENT
    if name.endswith("_parameters"):
        return f"{value:,.0f}"
    return f"{value / 2**20 if name.endswith('_bytes') else value:,.1f}"


def _cost_cells(cells: list[dict[str, Any]]) -> dict[tuple[str, ...], list[str]]:
    names = ("trainable_parameters", "train_seconds", "peak_memory_bytes")
    values: dict[tuple[str, ...], dict[str, dict[tuple[str, ...], float]]] = defaultdict(dict)
    for cell in cells:
        for name in names:  # once per data set, however many languages it was tested in
            by_dataset = values[_key(cell, _ROW)].setdefault(name, {})
            if not math.isnan(cell[name]):
                by_dataset[_key(cell, _COLUMN[:2])] = cell[name]
    return {
        row: [
            show_cost(
                name, sum(costs[name].values()) / len(costs[name]) if costs[name] else math.nan
            )
            for name in names
        ]
        for row, costs in values.items()
    }


def render_markdown(table: Table) -> str:
    """Return the table as a Markdown pipe table, with its caption above and its notes below."""
    lines = [
        _line(table.headers, escape_markdown),
        "| --- |" + " ---: |" * (len(table.headers) - 1),
    ]
    lines += [_line(row, escape_markdown) for row in table.rows]
    notes = [f"- {escape_markdown(note)}" for note in table.notes]
    return "\n".join([f"**{escape_markdown(table.caption)}**", "", *lines, "", *notes, ""])


def _line(cells: Sequence[str], escape: Callable[[str], str]) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"


def render_latex(table: Table) -> str:
    """Return the table as a LaTeX float; it needs booktabs, and XeLaTeX or LuaLaTeX for Chinese."""
    rows = [" & ".join(map(escape_latex, cells)) + r" \\" for cells in (table.headers, *table.rows)]
    return "\n".join(
        [
            "% \\usepackage{booktabs}; Chinese labels need XeLaTeX or LuaLaTeX with a Chinese font",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.headers) - 1)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {escape_latex(note)}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


def render_csv(table: Table) -> str:
    """Return one line per arm x data set x language, numbers in full, absent ones empty.

    Scores are fractions; `seeds` are separated by spaces. A text that a spreadsheet would run as a
    formula gets a leading apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV.values())
    for cell in list_rows(table.cells):
        writer.writerow([_csv_cell(cell[name]) for name in _CSV])
    return out.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return escape_csv(value)
    if isinstance(value, tuple):
        return escape_csv(" ".join(map(str, value)))
    if isinstance(value, float) and math.isnan(value):
        return ""
    return int(value) if value == int(value) and abs(value) > 1 else value
