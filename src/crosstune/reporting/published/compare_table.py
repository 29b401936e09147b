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

import pandas as pd

from crosstune.reporting.cells import NOT_MEASURED, Compared, SeedScores, Table, render_scores
from crosstune.reporting.comparison import (
    COMPARED_COLUMNS,
    MARK,
    ArmScores,
    Comparison,
    compare_cells,
    explain_mark,
    format_signed,
)
from crosstune.reporting.published.layout import REQUIRED, ReplicationTable, Slot
from crosstune.reporting.published.model import Procedure, PublishedNumber
from crosstune.reporting.published.verdict import (
    STAND_IN,
    Verdict,
    judge_published,
    reason_to_withhold,
)
from crosstune.reporting.records import Records, list_runs
from crosstune.reporting.render import drop_points, render_csv
from crosstune.runs.record_schema import uses_stand_in
from crosstune.runs.settings import flatten

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
_CSV = (*REQUIRED, "arm", *_NUMBERS, *COMPARED_COLUMNS, *_PUBLISHED, "row_label")
_HEADERS = ("score", "ours", "ours as published", "published", "difference", "verdict")
_SELECTED_ON = "validation"  # every run of ours chooses its checkpoint there

Row = Mapping[str, Any]
Index = Mapping[tuple[str, ...], Sequence[Row]]


@dataclass(frozen=True, kw_only=True)
class _Fitting:
    """The runs and arms, (data set, arm), that fit a slot."""

    run_ids: tuple[str, ...]
    arms: Sequence[tuple[str, str]]

    @property
    def arm(self) -> str:
        """The name of the only arm that fits, or nothing."""
        return self.arms[0][1] if len(self.arms) == 1 else ""


@dataclass(frozen=True, kw_only=True)
class OurScores(SeedScores, _Fitting):
    """Our scores in a slot; without any where several arms fit, or only rehearsals do."""


@dataclass(frozen=True, kw_only=True)
class FilledSlot(SeedScores, _Fitting, Compared):
    """A slot with our scores, their comparison and the verdict on the published number."""

    slot: Slot
    verdict: Verdict


@dataclass(frozen=True)
class _Runs:
    """The runs of a study by `_ARM`, and the scores of those that count by `REQUIRED`.

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
    table: Table,
    frame: pd.DataFrame,
    records: Records,
    target: ReplicationTable,
    comparison: Comparison,
) -> Table:
    """Return a printed table filled from a study, whose own table is `table`.

    Rows are scores, grouped by the rows of the printed table. "ours" is mean ± std (n), "ours as
    published" the same runs aggregated as the paper did. `numbers` has every number.
    """
    comparison = replace(comparison, baseline=target.baseline)
    runs = _gather(frame, records)
    cells = _fill_slots(target.slots, runs, comparison)
    letters: dict[tuple[str, ...], str] = {}
    lines = [(cell.slot.column, *_render_cell(cell, letters)) for cell in cells]
    return Table(
        experiment=table.experiment,
        caption=f"{table.experiment} beside {_cite(target)}, in percentage points; ours: mean ± "
        "standard deviation over seeds (number of seeds)." + explain_mark(cells, comparison),
        headers=_HEADERS,
        rows=tuple(lines),
        notes=tuple(_list_notes(target, cells, letters, comparison)),
        numbers=tuple(map(_list_numbers, cells)),
        flags=table.flags,
        groups=tuple(
            (name, tuple(row for row, _ in members))
            for name, members in groupby(enumerate(cells), lambda entry: entry[1].slot.row)
        ),
    )


def _fill_slots(slots: Sequence[Slot], runs: _Runs, comparison: Comparison) -> list[FilledSlot]:
    scores = [_find_scores(slot, runs) for slot in slots]
    candidates = [
        ArmScores(
            (slot.column, slot.ours["model"]),
            slot.ours["method"],
            ours.arm,
            dict(zip(ours.seeds, ours.scores, strict=True)),
        )
        for slot, ours in zip(slots, scores, strict=True)
    ]
    cells = []
    compared = compare_cells(candidates, comparison)
    for slot, ours, interval in zip(slots, scores, compared, strict=True):
        procedure = _procedure(slot, ours.n)
        verdict = judge_published(ours.scores, procedure, slot.theirs, comparison.rule)
        if runs.stand_ins.intersection(ours.run_ids):
            verdict = reason_to_withhold(verdict)
        cells.append(FilledSlot(**vars(ours), **vars(interval), slot=slot, verdict=verdict))
    return cells


def _gather(frame: pd.DataFrame, records: Records) -> _Runs:
    runs, scores = defaultdict(list), defaultdict(list)
    for run in list_runs(frame):
        if not run["superseded_by"]:
            runs[tuple(run[key] for key in _ARM)].append(run)
    for row in frame.to_dict("records"):
        if row["status"] == "finished" and not row["superseded_by"]:
            scores[tuple(row[key] for key in REQUIRED)].append(row)
    settings = {record["run_id"]: flatten(record["config"]) for record in records.records}
    stand_ins = frozenset(record["run_id"] for record in records.records if uses_stand_in(record))
    return _Runs(runs, scores, settings, stand_ins)


def _find_scores(slot: Slot, runs: _Runs) -> OurScores:
    matches = runs.find(runs.scores, tuple(slot.ours[key] for key in REQUIRED), slot.settings)
    arm = tuple(slot.ours[key] for key in _ARM)
    planned = {run["seed"] for run in runs.find(runs.runs, arm, slot.settings)}
    arms = sorted({(row["dataset"], row["arm"]) for row in matches})
    counted = sorted(matches, key=lambda row: row["seed"]) if len(arms) == 1 else []
    run_ids = tuple(row["run_id"] for row in counted)
    if runs.stand_ins.intersection(run_ids):  # their scores say nothing about the paper's data
        counted = []
    return OurScores(
        seeds=tuple(row["seed"] for row in counted),
        scores=tuple(row["value"] for row in counted),
        planned=len(planned),
        run_ids=run_ids,
        arms=arms,
    )


def _procedure(slot: Slot, seeds: int) -> Procedure:
    """Return how our number came about; a median or a maximum is taken as the paper did."""
    aggregate = slot.theirs.aggregate if slot.theirs.aggregate in ("median", "max") else "mean"
    return Procedure(slot.ours["split"], aggregate, seeds, _SELECTED_ON)


def _list_numbers(cell: FilledSlot) -> dict[str, Any]:
    """Return a line of the CSV file."""
    theirs, verdict = cell.slot.theirs, cell.verdict
    values = (theirs.score, theirs.value, theirs.unit, theirs.aggregate, theirs.seeds)
    values += (theirs.verified, verdict.ours, verdict.difference, verdict.expected)
    published = dict(zip(_PUBLISHED, (*values, "; ".join(verdict.differs)), strict=True))
    names = ("arm", *_NUMBERS, *COMPARED_COLUMNS)
    numbers = {name: getattr(cell, name) for name in names}
    line = {**cell.slot.ours, **numbers, **published, "row_label": cell.slot.row}
    return drop_points(line)


def _render_cell(cell: FilledSlot, letters: dict[tuple[str, ...], str]) -> list[str]:
    """Return the texts of a row; `letters` has a letter for each set of protocol differences."""
    verdict, theirs = cell.verdict, cell.slot.theirs
    printed = f"{100 * (theirs.score or 0):.2f} ({_describe_aggregate(theirs)})"
    if STAND_IN in verdict.differs:
        return [NOT_MEASURED, NOT_MEASURED, printed, NOT_MEASURED, STAND_IN]
    if not cell.n:
        state = f"{len(cell.arms)} arms fit" if cell.arms else "not run"
        return [NOT_MEASURED, NOT_MEASURED, printed, NOT_MEASURED, state]
    judged = {True: "agrees", False: "disagrees", None: "open"}[verdict.expected]
    if verdict.differs:
        judged += f" ({letters.setdefault(verdict.differs, _letter(len(letters)))})"
    ours = render_scores(cell) + (MARK if cell.claimed else "")
    if math.isnan(verdict.ours):
        return [ours, NOT_MEASURED, printed, NOT_MEASURED, judged]
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


def _cite(target: ReplicationTable) -> str:
    paper, table = target.published.paper, target.published.table
    number = f", table {table['number']}" if "number" in table else ""
    return f"{paper.get('authors', paper['title'])} {paper.get('year', '')}{number}".strip()


def _list_notes(
    target: ReplicationTable,
    cells: Sequence[FilledSlot],
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
        if len(cell.arms) > 1:
            named = ", ".join(f"{arm} on {dataset}" for dataset, arm in cell.arms)
            yield f"{cell.slot.row}, {cell.slot.ours['data']}: several arms fit: {named}."
    published = target.published
    yield f"Published: {published.paper.get('title')}, {published.table.get('what')}."
    yield f"Published numbers were picked so: {published.selection}."
    for problem in published.known_problems:
        yield f"Known of the published table: {problem}."


def render_replication(filled: Table) -> str:
    """Return a filled table as CSV, one line per cell, scores as fractions with all digits."""
    return render_csv(_CSV, filled.numbers)
