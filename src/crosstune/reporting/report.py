"""Write a study's report: tables (Markdown, LaTeX, CSV), figures (SVG, PNG) and one HTML page.

Reads local records and predictions only. `cli.py` calls `write_report` and then `print_report`; the
numbers come from `stats.py`, `transfer.py` and `errors.py`, the texts from `tables.py` and
`page.py`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from crosstune.errors import RunError
from crosstune.reporting.comparison import Comparison
from crosstune.reporting.continual import build_stage_tables
from crosstune.reporting.derived import build_costs, build_differences, render_costs
from crosstune.reporting.errors.gather import gather_errors, render_counts, render_items
from crosstune.reporting.escape import plain
from crosstune.reporting.figures.draw_all import Drawings, draw_all
from crosstune.reporting.html.page import Content, render_page
from crosstune.reporting.html.provenance import read_commands
from crosstune.reporting.item_bootstrap import widen
from crosstune.reporting.published.compare_table import build_replication, render_replication
from crosstune.reporting.published.layout import Target
from crosstune.reporting.records import Records, Rows, list_runs, read_records, to_frame
from crosstune.reporting.tables import (
    Table,
    build_table,
    render_csv,
    render_latex,
    render_markdown,
)
from crosstune.reporting.transfer import build_transfer, render_transfer

# What only some studies have.
_PUBLISHED = ("published.md", "published.tex", "published.csv")
_DIFFERENCES = ("differences.md", "differences.tex")
_TRANSFER = ("transfer.md", "transfer.tex", "transfer.csv")
_STAGES = "stages.md"
_FIGURES = {f"{one.name}.{ending}" for one in fields(Drawings) for ending in ("svg", "png")}
_ERRORS = ("errors_counts.csv", "errors_items.csv")
_SOMETIMES = {*_DIFFERENCES, *_PUBLISHED, *_TRANSFER, *_ERRORS, *_FIGURES, _STAGES}
_WIDTH = 100  # columns, where the output is no terminal
_LABEL = 36  # columns that a row's label may take before it is folded
_GAP = 3  # columns between two columns of the table


@dataclass(frozen=True)
class Report:
    """What `write_report` left: the folder, the path of each file by its name, and the tables.

    The first table is the study's own; differences, a printed table, transfer and the stages of
    continual learning follow, where there are any. The table of costs is in its files and on the
    page alone.
    """

    folder: Path
    paths: dict[str, Path]
    markdown: str
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class ReportOptions:
    """What a report is asked for: what scores are compared with, and a printed table if any."""

    comparison: Comparison = field(default_factory=Comparison)
    target: Target | None = None


def write_report(
    outputs: Path,
    experiment: str,
    missing: Sequence[Mapping[str, Any]],
    command: str,
    wanted: ReportOptions | None = None,
) -> Report:
    """Write `outputs/<experiment>/report/` from the local records of a study.

    `missing` are the planned runs that left no record, as `frame.Records` describes them. Each
    file is replaced as a whole; the same records give the same bytes. The Pareto plot, learning
    curves, transfer, errors, differences and a printed table have files only where there are any.

    Raises:
        ConfigError: the study has no run.
        RunError: the folder cannot be written.
    """
    wanted = wanted or ReportOptions()
    records = replace(read_records(outputs, experiment), missing=missing)
    scores = to_frame(records)
    table = build_table(experiment, scores, records, wanted.comparison)
    drawings = draw_all(table, list_runs(scores), records.folders)
    content = _gather(table, scores, records, wanted, outputs / experiment)
    files = _render(content)
    files["index.html"] = render_page(content, scores, records, command, drawings).encode()
    files |= _list_figures(drawings)
    folder = outputs / experiment / "report"
    try:
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            _write_whole(folder / name, text)
        for name in _SOMETIMES - files.keys():  # left by an earlier report
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"The report cannot be written to {folder}: {error}.") from error
    paths = {name: folder / name for name in files}
    more = (other for _, other in content.more)
    return Report(folder, paths, files["table.md"].decode(), (table, *more))


def _gather(
    table: Table, scores: Rows, records: Records, wanted: ReportOptions, study: Path
) -> Content:
    """Return what stands beside a study's table, which comes back with its wider intervals."""
    comparison, target = wanted.comparison, wanted.target
    errors = gather_errors(table, scores, records)
    table = widen(table, errors, comparison.rule)
    return Content(
        table=table,
        comparison=comparison,
        differences=build_differences(table, comparison),
        published=target and build_replication(table, scores, records, target, comparison),
        costs=build_costs(table),
        commands=read_commands(study),
        transfer=build_transfer(table),
        stages=build_stage_tables(table.experiment, scores, records),
        errors=errors,
    )


def _render(content: Content) -> dict[str, bytes]:
    """Return the tables beside the page, by the names of their files."""
    table, costs = content.table, content.costs
    files = {
        "table.md": render_markdown(table).encode(),
        "table.tex": render_latex(table).encode(),
        "table.csv": render_csv(table).encode(),
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
            files |= zip(names, (to(other).encode() for to in renderers), strict=True)
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


def _write_whole(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the tables, their notes, and where the files are.

    A table wider than the console is printed in several, each with the row labels; only labels and
    headers are ever folded, numbers stand whole.
    """
    console = console or Console(width=None if sys.stdout.isatty() else _WIDTH)
    for table in report.tables:
        _print_table(table, console)
    console.print(Text(plain(f"Report: {report.paths['index.html']}")))


def _print_table(table: Table, console: Console) -> None:
    console.print(Text(plain(table.caption), style="bold"))
    for flag in table.flags:
        console.print(Text(f"! {plain(flag)}", style="yellow"))
    for name, rows in table.parts:
        if name:
            console.print(Text(plain(name), style="italic"))
        _print_rows(table, rows, console)
    for note in table.notes:
        console.print(Text(f"- {plain(note)}", style="dim"))


def _print_rows(table: Table, rows: Sequence[tuple[str, ...]], console: Console) -> None:
    """Print rows under their headers; rich's own tables take ten times as long."""
    for block in _blocks(table, console.width):
        widths = [_width(table, column) for column in block]
        head, *body = (
            [
                _fold(plain(row[column]), width, console)
                for column, width in zip(block, widths, strict=True)
            ]
            for row in (table.headers, *rows)
        )
        high = max(map(len, head))
        lines = _set([[""] * (high - len(cell)) + cell for cell in head], widths)
        lines.append(f" {'─' * (sum(widths) + _GAP * (len(widths) - 1))}")
        for cells in body:
            lines += _set(cells, widths)
        console.out("", *lines, "", sep="\n", highlight=False)


def _fold(text: str, width: int, console: Console) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    return [line.plain for line in Text(text).wrap(console, width, overflow="fold")]


def _set(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """Return the lines of a row: the label to the left, the rest to the right."""
    lines = []
    for label, *rest in zip_longest(*cells, fillvalue=""):
        line = f" {label}{' ' * (widths[0] - cell_len(label))}"
        for cell, width in zip(rest, widths[1:], strict=True):
            line += f"{' ' * (_GAP + width - cell_len(cell))}{cell}"
        lines.append(line)
    return lines


def _width(table: Table, column: int) -> int:
    cells = [cell_len(plain(row[column])) for row in table.rows]
    words = [cell_len(word) for word in plain(table.headers[column]).split()]
    if column == 0:
        return min(max([*cells, *words]), _LABEL)
    return max([*cells, min(max(words), 16)])


def _blocks(table: Table, width: int) -> list[list[int]]:
    """Return the columns of each printed table: the labels first, then as many as fit."""
    first = _width(table, 0) + _GAP + 1
    blocks, used = [[0]], first
    for column in range(1, len(table.headers)):
        needed = _width(table, column) + _GAP
        if used + needed > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = first
        blocks[-1].append(column)
        used += needed
    return blocks
