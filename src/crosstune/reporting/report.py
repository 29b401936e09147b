"""Write a study's report: tables (Markdown, LaTeX, CSV), figures (SVG, PNG) and one HTML page.

Reads local records and predictions only; `print_report` prints the same tables on the terminal.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from crosstune.errors import RunError
from crosstune.files import atomic_write
from crosstune.printable import strip_controls
from crosstune.reporting.cells import Table
from crosstune.reporting.comparison import Comparison, build_differences, check_baseline
from crosstune.reporting.continual import build_stage_tables
from crosstune.reporting.costs import build_costs, render_costs
from crosstune.reporting.errors.gather import gather_errors, render_counts, render_items
from crosstune.reporting.figures.draw_all import Drawings, draw_all
from crosstune.reporting.html.page import Content, render_page
from crosstune.reporting.html.provenance import read_commands
from crosstune.reporting.item_bootstrap import add_item_intervals
from crosstune.reporting.published.compare_table import build_replication, render_replication
from crosstune.reporting.published.layout import ReplicationTable
from crosstune.reporting.records import Records, list_runs, read_records, to_frame
from crosstune.reporting.render import render_latex, render_markdown
from crosstune.reporting.tables import build_table, render_cells
from crosstune.reporting.transfer import build_transfer, render_transfer

# Files that only some studies have.
_PUBLISHED = ("published.md", "published.tex", "published.csv")
_DIFFERENCES = ("differences.md", "differences.tex")
_TRANSFER = ("transfer.md", "transfer.tex", "transfer.csv")
_STAGES = "stages.md"
_FIGURES = {f"{one.name}.{ending}" for one in fields(Drawings) for ending in ("svg", "png")}
_ERRORS = ("errors_counts.csv", "errors_items.csv")
_OPTIONAL = {*_DIFFERENCES, *_PUBLISHED, *_TRANSFER, *_ERRORS, *_FIGURES, _STAGES}
_WIDTH = 100  # columns, where the output is no terminal
_LABEL_WIDTH, _HEADER_WIDTH = 36, 24  # columns beyond which labels and headers are folded
_GAP = 3  # columns between two columns of a table


@dataclass(frozen=True)
class Report:
    """The folder of a written report, the path of each file by its name, and the tables.

    The first table is the study's own; differences, a published table, transfer and the stages of
    continual learning follow, where there are any. The table of costs is only in its files and on
    the page.
    """

    folder: Path
    paths: dict[str, Path]
    markdown: str
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class ReportOptions:
    """The comparison of a report, whether its baseline must exist, and a table to fill."""

    comparison: Comparison = field(default_factory=Comparison)
    target: ReplicationTable | None = None
    baseline_required: bool = False


def write_report(
    outputs: Path,
    experiment: str,
    missing: Sequence[Mapping[str, Any]],
    command: str,
    options: ReportOptions | None = None,
) -> Report:
    """Write `outputs/<experiment>/report/` from the local records of a study.

    `missing` are the planned runs without a record, as `Records` describes them. Files are written
    atomically; the same records give the same bytes. The Pareto plot, learning curves, transfer,
    errors, differences and a published table have files only where there are any.

    Raises:
        ConfigError: the study has no run, or not the baseline that must exist.
        RunError: the folder cannot be written.
    """
    options = options or ReportOptions()
    records = replace(read_records(outputs, experiment), missing=missing)
    frame = to_frame(records)
    if options.baseline_required:
        check_baseline(options.comparison.baseline, list_runs(frame))
    table = build_table(experiment, frame, records, options.comparison)
    drawings = draw_all(table, list_runs(frame), records.folders)
    content = _gather_content(table, frame, records, options, outputs / experiment)
    files = _render_tables(content)
    files["index.html"] = render_page(content, frame, records, command, drawings).encode()
    files |= _list_figures(drawings)
    folder = outputs / experiment / "report"
    try:
        for name, text in files.items():
            with atomic_write(folder / name) as partial:
                partial.write_bytes(text)
        for name in _OPTIONAL - files.keys():  # of an earlier report
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"The report cannot be written to {folder}: {error}.") from error
    paths = {name: folder / name for name in files}
    more = (other for _, other in content.more)
    return Report(folder, paths, files["table.md"].decode(), (content.table, *more))


def _gather_content(
    table: Table, frame: pd.DataFrame, records: Records, options: ReportOptions, study: Path
) -> Content:
    comparison, target = options.comparison, options.target
    errors = gather_errors(table, frame, records)
    table = add_item_intervals(table, errors, comparison.rule)
    return Content(
        table=table,
        comparison=comparison,
        differences=build_differences(table, comparison),
        published=target and build_replication(table, frame, records, target, comparison),
        costs=build_costs(table),
        commands=read_commands(study),
        transfer=build_transfer(table),
        stages=build_stage_tables(table.experiment, frame, records),
        errors=errors,
    )


def _render_tables(content: Content) -> dict[str, bytes]:
    """Return the tables beside the page, by the names of their files."""
    table, costs = content.table, content.costs
    files = {
        "table.md": render_markdown(table).encode(),
        "table.tex": render_latex(table).encode(),
        "table.csv": render_cells(table.cells).encode(),
        "costs.md": render_markdown(costs).encode(),
        "costs.tex": render_latex(costs).encode(),
        "costs.csv": render_costs(costs).encode(),
    }
    both = (render_markdown, render_latex)
    for names, other, renderers in (
        (_DIFFERENCES, content.differences, both),
        (_PUBLISHED, content.published, (*both, render_replication)),
        (_TRANSFER, content.transfer, (*both, render_transfer)),
    ):
        if other:
            files |= zip(names, (render(other).encode() for render in renderers), strict=True)
    if content.stages:
        files[_STAGES] = "\n".join(map(render_markdown, content.stages)).encode()
    if content.errors.sections:
        texts = (render(content.errors).encode() for render in (render_counts, render_items))
        files |= zip(_ERRORS, texts, strict=True)
    return files


def _list_figures(drawings: Drawings) -> dict[str, bytes]:
    """Return the figures by the names of their files."""
    files = {}
    for name, drawing in vars(drawings).items():
        if drawing:
            files |= {f"{name}.svg": drawing.svg.encode(), f"{name}.png": drawing.png}
    return files


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the tables, their notes, and where the files are.

    A table wider than the console is printed in several parts, each with the row labels. Only
    labels and headers are folded, never numbers.
    """
    console = console or Console(width=None if sys.stdout.isatty() else _WIDTH)
    for table in report.tables:
        console.print(Text(strip_controls(table.caption), style="bold"))
        for flag in table.flags:
            console.print(Text(f"! {strip_controls(flag)}", style="yellow"))
        for name, rows in table.parts:
            if name:
                console.print(Text(strip_controls(name), style="italic"))
            for columns in _split_columns(table, console.width):
                _print_columns(table, rows, columns, console)
        for note in table.notes:
            console.print(Text(f"- {strip_controls(note)}", style="dim"))
    console.print(Text(strip_controls(f"Report: {report.paths['index.html']}")))


def _print_columns(
    table: Table, rows: Iterable[Sequence[str]], columns: Sequence[int], console: Console
) -> None:
    widths = [_measure_column(table, column) for column in columns]
    total = sum(widths) + _GAP * (len(widths) - 1)  # may be more than the console has
    terminal_table = TerminalTable(box=box.SIMPLE, show_edge=False, pad_edge=False, width=total)
    for column, width in zip(columns, widths, strict=True):
        terminal_table.add_column(
            Text(strip_controls(table.headers[column])),
            justify="right" if column else "left",
            width=width,
            overflow="fold",
        )
    for row in rows:
        terminal_table.add_row(*(Text(strip_controls(row[column])) for column in columns))
    console.print()
    console.print(terminal_table, crop=False)
    console.print()


def _measure_column(table: Table, column: int) -> int:
    """Return the width of a column in which no number is folded."""
    rows = (*table.rows, *table.references)
    cells = [cell_len(strip_controls(row[column])) for row in rows]
    words = [cell_len(word) for word in strip_controls(table.headers[column]).split()]
    if column == 0:
        return min(max([*cells, *words]), _LABEL_WIDTH)
    return max([*cells, min(max(words), _HEADER_WIDTH)])


def _split_columns(table: Table, width: int) -> list[list[int]]:
    """Return the columns of each printed part: the labels, then as many as fit."""
    first = _measure_column(table, 0)
    parts, used = [[0]], first
    for column in range(1, len(table.headers)):
        needed = _measure_column(table, column) + _GAP
        if used + needed > width and len(parts[-1]) > 1:
            parts.append([0])
            used = first
        parts[-1].append(column)
        used += needed
    return parts
