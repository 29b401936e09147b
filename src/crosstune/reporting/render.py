"""A table of plain text -> Markdown, LaTeX and CSV.

Any text may come from data, so each form escapes all of it.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crosstune.reporting.cells import Table
from crosstune.reporting.escape import escape_csv, escape_latex, escape_markdown


def render_markdown(table: Table) -> str:
    """Return the table as Markdown pipe tables, its caption and flags above, its notes below."""
    lines = [f"**{escape_markdown(table.caption)}**", ""]
    lines += [f"> {escape_markdown(flag)}\n" for flag in table.flags]
    for name, rows in table.parts:
        lines += [f"*{escape_markdown(name)}*", ""] if name else []
        header, *body = (
            f"| {' | '.join(map(escape_markdown, cells))} |" for cells in (table.headers, *rows)
        )
        lines += [header, "| --- |" + " ---: |" * (len(table.headers) - 1), *body, ""]
    return "\n".join([*lines, *(f"- {escape_markdown(note)}" for note in table.notes), ""])


def render_latex(table: Table) -> str:
    """Return the table as a LaTeX float; it needs booktabs, and XeLaTeX or LuaLaTeX for Chinese."""
    width = len(table.headers)
    body = []
    for name, rows in table.parts:
        body += [r"\midrule"]
        body += [rf"\multicolumn{{{width}}}{{l}}{{{escape_latex(name)}}} \\"] if name else []
        body += map(_render_latex_row, rows)
    return "\n".join(
        [
            "% \\usepackage{booktabs}; Chinese labels need XeLaTeX or LuaLaTeX with a Chinese font",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.caption)}}}",
            *(rf"\par\footnotesize {escape_latex(flag)}\par" for flag in table.flags),
            rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
            r"\toprule",
            _render_latex_row(table.headers),
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {escape_latex(note)}" for note in table.notes),
            r"\end{table}",
            "",
        ]
    )


def _render_latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"


def render_csv(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    r"""Return lines as CSV: numbers in full, NaN and None empty, tuples joined by spaces.

    A text that a spreadsheet would run as a formula gets a leading apostrophe.

    >>> render_csv(["arm", "seeds", "std"], [{"arm": "=lora", "seeds": (1, 2), "std": math.nan}])
    "arm,seeds,std\n'=lora,1 2,\n"
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_render_value(line[name]) for name in columns] for line in lines)
    return out.getvalue()


def _render_value(value: Any) -> Any:
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    if isinstance(value, str):
        return escape_csv(value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def drop_points(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line with whole numbers beyond 1 as integers: means of counts are floats.

    >>> drop_points({"bytes": 1024.0, "score": 0.5, "arm": "lora"})
    {'bytes': 1024, 'score': 0.5, 'arm': 'lora'}
    """
    return {
        name: int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) > 1
        else value
        for name, value in line.items()
    }
