"""The comparison table of a study, and any table of plain text in Markdown and LaTeX.

Rows are arms, columns data set x language x headline metric. Every text may come from data, so
each form escapes all of it. Numbers come from `stats.py` and `differences.py`, further tables from
`derived.py`; files are written by `report.py`.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crosstune.reporting.aggregate import UNSCORED, list_validation, mean_std, summarise_scores
from crosstune.reporting.comparison import (
    MARK,
    TOLD,
    Comparison,
    compare_cells,
    explain_mark,
)
from crosstune.reporting.conditions import Conditions, Row, compare_conditions
from crosstune.reporting.costs import ABSENT, average_costs, name_cost, show_cost
from crosstune.reporting.csv import render_lines
from crosstune.reporting.escape import escape_latex, escape_markdown
from crosstune.reporting.notes import list_notes
from crosstune.reporting.records import COSTS, Records, Rows, stands_in

_SHOWN = ("trainable_parameters", "train_seconds", "peak_memory_bytes")
COST_HEADERS = tuple(map(name_cost, _SHOWN))
ARM_KEY = ("model", "method", "arm")
_VALIDATION = ("validation_mean", "validation_std", "validation_scores")
WIDENED = ("low_over_items", "high_over_items")  # what `testsets.py` adds to a cell
WIDENED += ("difference_low_over_items", "difference_high_over_items", "clusters")
_COLUMN = ("dataset", "train_language", "split", "language", "metric")
_CSV = {
    name: name for name in (*ARM_KEY, *_COLUMN, "mean", "std", "n", "planned", "seeds", *UNSCORED)
}
_CSV |= {name: name if name.endswith("_parameters") else f"{name}_mean" for name in COSTS}
_CSV |= {name: name for name in ("scores", *TOLD, *_VALIDATION, *WIDENED, "conditions")}


@dataclass(frozen=True)
class Table:
    """A table as plain, unescaped text, with the numbers behind it.

    `headers` and each row are: label, one cell per score column, the three costs. `cells` is
    `summarise_scores` with `row` and `column` (positions in `rows` and `columns`), `text`,
    `conditions`, what `differences.compare_cells` adds, and each seed's score on validation, NaN
    where there is none, with mean and std. `flags` say in what rows differ that should not.
    `groups` pairs conditions with the rows that stand under them; without groups all rows are one
    comparison.
    """

    experiment: str
    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    cells: Rows
    flags: tuple[str, ...] = ()
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the headers of the score columns."""
        return self.headers[1 : -len(COST_HEADERS)]

    @property
    def parts(self) -> tuple[tuple[str, list[tuple[str, ...]]], ...]:
        """Return conditions and rows of each comparison; of the only one, "" and all rows."""
        groups = self.groups or (("", tuple(range(len(self.rows)))),)
        return tuple((name, [self.rows[row] for row in rows]) for name, rows in groups)


def build_table(
    experiment: str, frame: Rows, records: Records, comparison: Comparison | None = None
) -> Table:
    """Return the table of a study: arms x (data set, language, headline metric), and costs.

    A cell is "mean ± std (n)" in percentage points, "(n of planned)" where seeds are lacking, or
    what became of the runs if none finished; a mark is behind it where it may be claimed to differ
    from the baseline. Costs are means over data sets.
    """
    comparison = comparison or Comparison()
    cells = summarise_scores(frame)
    row_keys = sorted({key_of(cell, ARM_KEY) for cell in cells}, key=_natural)
    column_keys = sorted({key_of(cell, _COLUMN) for cell in cells}, key=_column_order)
    models = sorted({key[0] for key in row_keys})
    labels = {key: " · ".join(key[:1] * (len(models) > 1) + key[2:]) for key in row_keys}
    row_of, column_of = _positions(row_keys), _positions(column_keys)
    conditions = compare_conditions(frame, records, labels)
    labels, names = _mark(labels, conditions)
    _add_validation(cells, list_validation(frame))
    for cell in cells:
        cell["row"], cell["column"] = (
            row_of[key_of(cell, ARM_KEY)],
            column_of[key_of(cell, _COLUMN)],
        )
        cell["conditions"] = names.get(key_of(cell, ARM_KEY), "")
    compare_cells(cells, comparison)
    grid = _fill(cells, len(row_keys), len(column_keys))
    caption = f"{experiment}: mean ± standard deviation over seeds (number of seeds), in percentage"
    caption += f" points. Model: {models[0]}." if len(models) == 1 else " points."
    start = "method" if len(models) == 1 else "model · method"
    costs = average_costs(cells, _SHOWN)
    shown = {row: [show_cost(*cost) for cost in means.items()] for row, means in costs.items()}
    return Table(
        experiment=experiment,
        caption=caption + explain_mark(cells, comparison),
        headers=(start, *map(column_label, column_keys), *COST_HEADERS),
        rows=tuple(
            (labels[key], *line, *shown[row_of[key]])
            for key, line in zip(row_keys, grid, strict=True)
        ),
        notes=tuple(list_notes(frame, records, labels)),
        cells=cells,
        flags=(*_flag_stand_ins(records), *conditions.flags),
        groups=tuple(
            (name, tuple(row_of[key] for key in keys)) for name, keys in conditions.groups
        ),
    )


def _flag_stand_ins(records: Records) -> Iterable[str]:
    runs = [record["run_id"] for record in records.records if stands_in(record)]
    if runs:
        yield (
            f"{len(runs)} of {len(records.records)} runs are rehearsals on stand-in data, made up "
            "in place of the data set's own: their scores say nothing of it."
        )


def _add_validation(
    cells: Sequence[dict[str, Any]], found: Mapping[tuple[str, str], float]
) -> None:
    for cell in cells:
        scores = tuple(found.get((run, cell["language"]), math.nan) for run in cell["run_ids"])
        measured = [score for score in scores if not math.isnan(score)]
        mean, std = mean_std(measured)
        scores = scores if measured else ()
        cell |= {"validation_mean": mean, "validation_std": std, "validation_scores": scores}


def _fill(cells: Sequence[dict[str, Any]], high: int, wide: int) -> list[list[str]]:
    """Return the grid of texts; the mark is in the grid alone, as is its legend in the caption."""
    grid = [[ABSENT] * wide for _ in range(high)]
    for cell in cells:
        cell["text"] = cell_text(cell)
        grid[cell["row"]][cell["column"]] = cell["text"] + (MARK if cell["claimed"] else "")
    return grid


def _mark(
    labels: Mapping[Row, str], conditions: Conditions
) -> tuple[dict[Row, str], dict[Row, str]]:
    """Return labels that name the conditions where rows are parted, and each row's conditions."""
    names = {row: name for name, rows in conditions.groups for row in rows}
    marked = {
        row: f"{label} {{{names[row]}}}" if names.get(row) else label
        for row, label in labels.items()
    }
    return marked, names


def key_of(row: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    """Return the named fields of a row."""
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


def column_label(key: tuple[str, ...]) -> str:
    """Return the header of a score column: data set, languages, metric, and an unusual split.

    >>> column_label(("xnli", "en", "test", "es", "accuracy"))
    'xnli en→es accuracy'
    """
    dataset, train, split, language, metric = key
    languages = language if language == train else f"{train}→{language}"
    unusual = "" if split == "test" else f"({split})"
    return " ".join(part for part in (dataset, languages, metric, unusual) if part)


def cell_text(cell: Mapping[str, Any]) -> str:
    """Return "mean ± std (n)" in percentage points, or what became of the runs if none finished."""
    if not cell["n"]:
        return ", ".join(f"{name} ({cell[name]})" for name in UNSCORED if cell.get(name)) or ABSENT
    spread = "" if math.isnan(cell["std"]) else f" ± {100 * cell['std']:.1f}"
    seeds = f"{cell['n']} of {cell['planned']}" if cell["n"] < cell["planned"] else str(cell["n"])
    return f"{100 * cell['mean']:.1f}{spread} ({seeds})"


def render_markdown(table: Table) -> str:
    """Return the table as Markdown pipe tables, its caption and flags above, its notes below."""
    lines = [f"**{escape_markdown(table.caption)}**", ""]
    lines += [f"> {escape_markdown(flag)}\n" for flag in table.flags]
    for name, rows in table.parts:
        lines += [f"*{escape_markdown(name)}*", ""] if name else []
        lines += [
            _line(table.headers, escape_markdown),
            "| --- |" + " ---: |" * (len(table.headers) - 1),
            *(_line(row, escape_markdown) for row in rows),
            "",
        ]
    return "\n".join([*lines, *(f"- {escape_markdown(note)}" for note in table.notes), ""])


def _line(cells: Sequence[str], escape: Callable[[str], str]) -> str:
    return f"| {' | '.join(escape(cell) for cell in cells)} |"


def render_latex(table: Table) -> str:
    """Return the table as a LaTeX float; it needs booktabs, and XeLaTeX or LuaLaTeX for Chinese."""
    body = []
    for name, rows in table.parts:
        width = len(table.headers)
        body += [r"\midrule"]
        body += [rf"\multicolumn{{{width}}}{{l}}{{{escape_latex(name)}}} \\"] if name else []
        body += [_latex_line(row) for row in rows]
    return "\n".join(
        [
            "% \\usepackage{booktabs}; Chinese labels need XeLaTeX or LuaLaTeX with a Chinese font",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.caption)}}}",
            *(rf"\par\footnotesize {escape_latex(flag)}\par" for flag in table.flags),
            rf"\begin{{tabular}}{{l{'r' * (len(table.headers) - 1)}}}",
            r"\toprule",
            _latex_line(table.headers),
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {escape_latex(note)}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"


def render_csv(table: Table) -> str:
    """Return one line per arm x data set x language, numbers in full, absent ones empty.

    Scores are fractions; `seeds` and what is told seed by seed are separated by spaces. A text
    that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    rows = table.cells
    return render_lines(
        [*_CSV.values()], ([plain_number(row.get(name, math.nan)) for name in _CSV] for row in rows)
    )


def plain_number(value: Any) -> Any:
    """Return a whole number without a decimal point.

    >>> plain_number(1024.0), plain_number(0.5)
    (1024, 0.5)
    """
    if isinstance(value, float) and value.is_integer() and abs(value) > 1:
        return int(value)
    return value
