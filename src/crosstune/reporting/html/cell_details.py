"""The text under each cell of the page: all digits, every seed, and the runs behind the number."""

import math
from collections.abc import Iterable, Mapping, Sequence

from crosstune.reporting.cells import NOT_MEASURED, Cell, Table
from crosstune.reporting.comparison import Comparison, format_signed
from crosstune.reporting.html.provenance import describe_origin
from crosstune.reporting.records import Records

_HEADERS = ("seed", "score", "validation", "difference", "run")


def describe_cells(
    table: Table, comparison: Comparison, records: Records, commands: Mapping[str, Sequence[str]]
) -> dict[tuple[int, int], str]:
    """Return the text under each cell with a score, by row and column; scores are fractions.

    `commands` are the overrides of every planned run, by run_id.
    """
    by_id = {record["run_id"]: record for record in records.records}
    details = {}
    for cell in table.cells:
        if cell.n:
            runs = [by_id[run_id] for run_id in cell.run_ids]
            lines = [*_summarise(cell, comparison), "", *_list_seeds(cell), ""]
            details[cell.row, cell.column] = "\n".join([*lines, *describe_origin(runs, commands)])
    return details


def _summarise(cell: Cell, comparison: Comparison) -> Iterable[str]:
    rule = comparison.rule
    yield f"{_format_mean(cell.mean, cell.std)}, {cell.n} of {cell.planned} seeds"
    if not math.isnan(cell.low):
        yield f"{comparison.percent} interval {cell.low:.6f} to {cell.high:.6f}"
    elif cell.n < rule.to_print:
        yield f"no interval: that takes {rule.to_print} seeds"
    if not math.isnan(cell.low_over_items):
        low, high = cell.low_over_items, cell.high_over_items
        yield f"over other test sets, too {low:.6f} to {high:.6f} ({cell.clusters} clusters)"
    if cell.validation_scores:
        yield f"validation {_format_mean(cell.validation_mean, cell.validation_std)}"
    if cell.difference_seeds:
        yield f"difference to {cell.baseline} {format_signed(cell.difference, 6)}"
        if not math.isnan(cell.difference_low):
            ends = _format_ends(cell.difference_low, cell.difference_high)
            yield f"{comparison.percent} interval {ends}"
            yield f"p {cell.p:.3g}, after Holm {cell.p_holm:.3g}"
        if not math.isnan(cell.difference_low_over_items):
            ends = _format_ends(cell.difference_low_over_items, cell.difference_high_over_items)
            yield f"over other test sets, too {ends}"


def _format_mean(mean: float, std: float) -> str:
    return f"{mean:.6f}" + ("" if math.isnan(std) else f" ± {std:.6f}")


def _format_ends(low: float, high: float) -> str:
    return f"{format_signed(low, 6)} to {format_signed(high, 6)}"


def _list_seeds(cell: Cell) -> Iterable[str]:
    """Yield one line per seed, in aligned columns."""
    validation = cell.validation_scores or (math.nan,) * cell.n
    differences = dict(zip(cell.difference_seeds, cell.differences, strict=True))
    rows: list[tuple[str, ...]] = [_HEADERS]
    for seed, score, validated, run in zip(
        cell.seeds, cell.scores, validation, cell.run_ids, strict=True
    ):
        validated_text = NOT_MEASURED if math.isnan(validated) else f"{validated:.6f}"
        difference = format_signed(differences[seed], 6) if seed in differences else NOT_MEASURED
        rows.append((str(seed), f"{score:.6f}", validated_text, difference, run))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
