"""What opens under a cell of the page: its numbers in full, every seed, and the runs behind it.

Plain text, which the page escapes; `page.py` calls it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from crosstune.reporting.cells import ABSENT, Cell, Table
from crosstune.reporting.comparison import Comparison, format_signed
from crosstune.reporting.html.provenance import explain_origin
from crosstune.reporting.records import Records

_HEADERS = ("seed", "score", "validation", "difference", "run")


def explain_cells(
    table: Table, comparison: Comparison, records: Records, commands: Mapping[str, Sequence[str]]
) -> dict[tuple[int, int], str]:
    """Return the text under each cell with a score, by row and column; scores are fractions.

    `commands` are the overrides of every planned run, by run_id.
    """
    by_id = {record["run_id"]: record for record in records.records}
    return {
        (cell.row, cell.column): "\n".join(
            [
                *(*_summarise(cell, comparison), "", *_list_seeds(cell), ""),
                *explain_origin([by_id[run] for run in cell.run_ids], commands),
            ]
        )
        for cell in table.cells
        if cell.n
    }


def _summarise(cell: Cell, comparison: Comparison) -> Iterable[str]:
    rule = comparison.rule
    yield f"{_spread(cell.mean, cell.std)}, {cell.n} of {cell.planned} seeds"
    if not math.isnan(cell.low):
        yield f"{comparison.percent} interval {cell.low:.6f} to {cell.high:.6f}"
    elif cell.n < rule.to_print:
        yield f"no interval: that takes {rule.to_print} seeds"
    if not math.isnan(cell.low_over_items):
        low, high = cell.low_over_items, cell.high_over_items
        yield f"over other test sets, too {low:.6f} to {high:.6f} ({cell.clusters} clusters)"
    if cell.validation_scores:
        yield f"validation {_spread(cell.validation_mean, cell.validation_std)}"
    if cell.difference_seeds:
        yield f"difference to {cell.baseline} {format_signed(cell.difference, 6)}"
        if not math.isnan(cell.difference_low):
            low, high = (
                format_signed(cell.difference_low, 6),
                format_signed(cell.difference_high, 6),
            )
            yield f"{comparison.percent} interval {low} to {high}"
            yield f"p {cell.p:.3g}, after Holm {cell.p_holm:.3g}"
        if not math.isnan(cell.difference_low_over_items):
            ends = (cell.difference_low_over_items, cell.difference_high_over_items)
            yield f"over other test sets, too {' to '.join(format_signed(end, 6) for end in ends)}"


def _spread(mean: float, std: float) -> str:
    return f"{mean:.6f}" + ("" if math.isnan(std) else f" ± {std:.6f}")


def _list_seeds(cell: Cell) -> Iterable[str]:
    """Yield a line a seed, in columns."""
    validation = cell.validation_scores or (math.nan,) * cell.n
    differences = dict(zip(cell.difference_seeds, cell.differences, strict=True))
    rows: list[tuple[str, ...]] = [_HEADERS]
    for seed, score, other, run in zip(
        cell.seeds, cell.scores, validation, cell.run_ids, strict=True
    ):
        shown = ABSENT if math.isnan(other) else f"{other:.6f}"
        apart = format_signed(differences[seed], 6) if seed in differences else ABSENT
        rows.append((str(seed), f"{score:.6f}", shown, apart, run))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield from (_align(row, widths) for row in rows)


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
