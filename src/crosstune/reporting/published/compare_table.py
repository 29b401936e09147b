"""Fill a printed table with our runs: our score, the published number, difference and verdict.

The layout says which scores belong in which cell, `verdict.py` how two numbers compare; the result
is a `Table` of plain text.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from string import ascii_lowercase
from typing import Any

from crosstune.reporting.aggregate import mean_std
from crosstune.reporting.arms import flatten
from crosstune.reporting.comparison import (
    MARK,
    TOLD,
    Comparison,
    compare_cells,
    explain_mark,
    format_signed,
)
from crosstune.reporting.costs import ABSENT
from crosstune.reporting.csv import render_lines
from crosstune.reporting.published.layout import NEEDED, Slot, Target
from crosstune.reporting.published.model import Procedure, PublishedNumber
from crosstune.reporting.published.verdict import (
    STAND_IN,
    Verdict,
    judge_published,
    reason_to_withhold,
)
from crosstune.reporting.records import Records, Rows, list_runs, stands_in
from crosstune.reporting.tables import Table, cell_text, plain_number

_ARM = ("model", "method", "data", "train_language")
_NUMBERS = ("mean", "std", "n", "planned", "seeds", "scores", "run_ids")
_PUBLISHED = (
    "published",
    "published_value",
    "published_unit",
    "published_aggregate",
    "published_seeds",
    "verified",
    "ours_as_published",
    "difference_to_published",
    "expected",
    "protocol",
)
_CSV = (*NEEDED, "arm", *_NUMBERS, *TOLD, *_PUBLISHED, "row_label")
_HEADERS = ("score", "ours", "ours as published", "published", "difference", "verdict")
_SELECTED_ON = "validation"  # every run of ours chooses its checkpoint there

Row = Mapping[str, Any]
Index = Mapping[tuple[str, ...], Sequence[Row]]


@dataclass(frozen=True)
class _Runs:
    """The runs of a study by `_ARM`, and the scores of those that count by `NEEDED`.

    `settings` are flattened configurations by run id; `stand_ins` the ids of runs on stand-in data.
    """

    runs: Index
    scores: Index
    settings: Mapping[str, Mapping[str, str]]
    stand_ins: frozenset[str]

    def find(self, index: Index, key: tuple[str, ...], settings: Mapping[str, Any]) -> list[Row]:
        """Return the rows that fit, or else those on stand-in data that fit but for the model."""
        matches = self._select(index.get(key, ()), settings)
        real = [row for row in matches if row["run_id"] not in self.stand_ins]
        any_model = [row for other, rows in index.items() if other[1:] == key[1:] for row in rows]
        return real or [
            row for row in self._select(any_model, settings) if row["run_id"] in self.stand_ins
        ]

    def _select(self, rows: Iterable[Row], settings: Mapping[str, Any]) -> list[Row]:
        wanted = flatten(settings).items()
        return [row for row in rows if wanted <= self.settings.get(row["run_id"], {}).items()]


def build_replication(
    table: Table, frame: Rows, records: Records, target: Target, comparison: Comparison
) -> Table:
    """Return a printed table filled from a study, whose own table is `table`.

    Rows are scores, grouped by the rows of the printed table. "ours" is mean ± std (n), "ours as
    published" the same runs aggregated as the paper did. `cells` has every number.
    """
    comparison = replace(comparison, baseline=target.baseline)
    runs = _gather(frame, records)
    columns: dict[str, int] = {}
    cells = []
    for slot in target.slots:
        position = {"row": len(cells), "column": columns.setdefault(slot.column, len(columns))}
        cells.append({**slot.ours, "row_label": slot.row, **position, **_fill(slot, runs)})
    compare_cells(cells, comparison)
    letters: dict[tuple[str, ...], str] = {}
    lines = []
    for slot, cell in zip(target.slots, cells, strict=True):
        verdict = judge_published(
            cell["scores"], _procedure(cell, slot.theirs), slot.theirs, comparison.rule
        )
        if runs.stand_ins.intersection(cell["run_ids"]):
            verdict = reason_to_withhold(verdict)
        cell |= _list_published(verdict, slot.theirs)
        lines.append((slot.column, *_render_cell(cell, verdict, slot.theirs, letters)))
    return Table(
        experiment=table.experiment,
        caption=f"{table.experiment} beside {_cite(target)}, in percentage points; ours: mean ± "
        "standard deviation over seeds (number of seeds)." + explain_mark(cells, comparison),
        headers=_HEADERS,
        rows=tuple(lines),
        notes=tuple(_list_notes(target, cells, letters, comparison)),
        cells=cells,
        flags=table.flags,
        groups=tuple(
            (name, tuple(cell["row"] for cell in group))
            for name, group in groupby(cells, lambda cell: cell["row_label"])
        ),
    )


def _gather(frame: Rows, records: Records) -> _Runs:
    runs, scores = defaultdict(list), defaultdict(list)
    for run in list_runs(frame):
        if not run["superseded_by"]:
            runs[tuple(run[key] for key in _ARM)].append(run)
    for row in frame:
        if row["status"] == "finished" and not row["superseded_by"]:
            scores[tuple(row[key] for key in NEEDED)].append(row)
    settings = {record["run_id"]: flatten(record["config"]) for record in records.records}
    stand_ins = frozenset(record["run_id"] for record in records.records if stands_in(record))
    return _Runs(runs, scores, settings, stand_ins)


def _fill(slot: Slot, runs: _Runs) -> dict[str, Any]:
    """Return our part of a cell; without scores if several arms fit."""
    matches = runs.find(runs.scores, tuple(slot.ours[key] for key in NEEDED), slot.settings)
    arm = tuple(slot.ours[key] for key in _ARM)
    planned = {run["seed"] for run in runs.find(runs.runs, arm, slot.settings)}
    arms = sorted({(row["dataset"], row["arm"]) for row in matches})
    counted = sorted(matches, key=lambda row: row["seed"]) if len(arms) == 1 else []
    scores = tuple(row["value"] for row in counted)
    mean, std = mean_std(scores)
    return {
        "arm": arms[0][1] if len(arms) == 1 else "",
        "arms": arms,
        "conditions": "",
        "mean": mean,
        "std": std,
        "n": len(counted),
        "planned": len(planned),
        "seeds": tuple(row["seed"] for row in counted),
        "scores": scores,
        "run_ids": tuple(row["run_id"] for row in counted),
    }


def _procedure(cell: Row, theirs: PublishedNumber) -> Procedure:
    """Return how our number came about; a median or a maximum is taken as the paper did."""
    aggregate = theirs.aggregate if theirs.aggregate in ("median", "max") else "mean"
    return Procedure(cell["split"], aggregate, cell["n"], _SELECTED_ON)


def _list_published(verdict: Verdict, theirs: PublishedNumber) -> dict[str, Any]:
    values = (theirs.score, theirs.value, theirs.unit, theirs.aggregate, theirs.seeds)
    values += (theirs.verified, verdict.ours, verdict.difference, verdict.expected)
    return dict(zip(_PUBLISHED, (*values, "; ".join(verdict.differs)), strict=True))


def _render_cell(
    cell: Row, verdict: Verdict, theirs: PublishedNumber, letters: dict[tuple[str, ...], str]
) -> list[str]:
    """Return the texts of a row; `letters` has a letter for each set of protocol differences."""
    printed = f"{100 * cell['published']:.2f} ({_describe_aggregate(theirs)})"
    if not cell["n"]:
        state = f"{len(cell['arms'])} arms fit" if cell["arms"] else "not run"
        return [ABSENT, ABSENT, printed, ABSENT, state]
    judged = {True: "agrees", False: "disagrees", None: "open"}[verdict.expected]
    if verdict.differs:
        judged += f" ({letters.setdefault(verdict.differs, _letter(len(letters)))})"
    ours = cell_text(cell) + (MARK if cell["claimed"] else "")
    if STAND_IN in verdict.differs:
        return [ours, ABSENT, printed, ABSENT, STAND_IN]
    if math.isnan(verdict.ours):
        return [ours, ABSENT, printed, ABSENT, judged]
    apart = format_signed(100 * verdict.difference, 2)
    return [ours, f"{100 * verdict.ours:.2f}", printed, apart, judged]


def _describe_aggregate(theirs: PublishedNumber) -> str:
    if theirs.aggregate == "unknown":
        return "not stated"
    return f"{theirs.aggregate} of {theirs.seeds}" if (theirs.seeds or 0) > 1 else theirs.aggregate


def _letter(number: int) -> str:
    """Return the letters of a number from 0: a to z, then aa, ab and so on.

    >>> _letter(0), _letter(27)
    ('a', 'ab')
    """
    first, last = divmod(number, len(ascii_lowercase))
    return (_letter(first - 1) if first else "") + ascii_lowercase[last]


def _cite(target: Target) -> str:
    paper, table = target.published.paper, target.published.table
    number = f", table {table['number']}" if "number" in table else ""
    return f"{paper.get('authors', paper['title'])} {paper.get('year', '')}{number}".strip()


def _list_notes(
    target: Target,
    cells: Sequence[Row],
    letters: Mapping[tuple[str, ...], str],
    comparison: Comparison,
) -> Iterable[str]:
    rule = comparison.rule
    yield (
        f"Agrees: the published number lies where the mean of as many runs of ours would, at "
        f"{comparison.percent}; disagrees: it does not; open: that takes a published mean or "
        f"single run, and {rule.to_print} seeds of ours. A letter names what differs in protocol."
    )
    for differs, letter in letters.items():
        yield f"({letter}) {'; '.join(differs)}."
    for cell in cells:
        if len(cell["arms"]) > 1:
            named = ", ".join(f"{arm} on {dataset}" for dataset, arm in cell["arms"])
            yield f"{cell['row_label']}, {cell['data']}: several arms fit: {named}."
    published = target.published
    yield f"Published: {published.paper.get('title')}, {published.table.get('what')}."
    yield f"Published numbers were picked so: {published.selection}."
    for problem in published.known_problems:
        yield f"Known of the published table: {problem}."


def render_replication(filled: Table) -> str:
    """Return a filled table as CSV, one line per cell, scores as fractions with all digits."""
    rows = ([plain_number(cell[name]) for name in _CSV] for cell in filled.cells)
    return render_lines(_CSV, rows)
