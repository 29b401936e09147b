"""A printed table filled with our runs: ours, the published number, their difference, a verdict.

Takes a `Target` of `layouts.py` and gives a `Table` of plain text, which `tables.py` renders and
`report.py` writes; what may be said of two numbers is decided in `verdict.py`.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pandas as pd

from crosstune.reporting.arms import flatten
from crosstune.reporting.cells import ABSENT, Compared, SeedScores, Table, render_scores
from crosstune.reporting.comparison import (
    COMPARED_COLUMNS,
    MARK,
    Candidate,
    Comparison,
    compare_cells,
    explain_mark,
    format_signed,
)
from crosstune.reporting.published.layout import NEEDED, Slot, Target
from crosstune.reporting.published.model import Procedure, Row
from crosstune.reporting.published.verdict import (
    STAND_IN,
    Verdict,
    judge_published,
    reason_to_withhold,
)
from crosstune.reporting.records import Records, list_runs, uses_stand_in
from crosstune.reporting.render import drop_points, render_csv

_ARM = ("model", "method", "data", "train_language")
_NUMBERS = ("mean", "std", "n", "planned", "seeds", "scores", "run_ids")
_THEIRS = ("published", "published_value", "published_unit", "published_aggregate")
_THEIRS += ("published_seeds", "verified", "ours_as_published", "difference_to_published")
_THEIRS += ("expected", "protocol")
_CSV = (*NEEDED, "arm", *_NUMBERS, *COMPARED_COLUMNS, *_THEIRS, "row_label")
_HEADERS = ("score", "ours", "ours as published", "published", "difference", "verdict")
_SELECTED_ON = "validation"  # where every run of ours chooses its checkpoint
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class OurScores(SeedScores):
    """Our scores in a slot; without any where several `arms`, (data set, arm), fit."""

    run_ids: tuple[str, ...]
    arms: Sequence[tuple[str, str]]

    @property
    def arm(self) -> str:
        """The name of the only arm that fits, or nothing."""
        return self.arms[0][1] if len(self.arms) == 1 else ""


@dataclass(frozen=True, kw_only=True)
class FilledSlot(OurScores, Compared):
    """A slot with our scores, their comparison and the verdict on the published number."""

    slot: Slot
    verdict: Verdict


@dataclass(frozen=True)
class _Runs:
    """The runs of a study: by arm, and the scores of those that count by what `NEEDED` names.

    `rehearsed` are the ids of those on stand-in data.
    """

    runs: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]]
    scores: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]]
    settings: Mapping[str, Mapping[str, str]]
    rehearsed: frozenset[str]

    def find(
        self,
        rows: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]],
        wanted: Sequence[str],
        settings: Mapping[str, Any],
    ) -> list[Mapping[str, Any]]:
        """Return what fits; a rehearsal stands in for any model where no run of its own fits."""
        fitting = [row for row in rows.get(tuple(wanted), ()) if self.holds(row, settings)]
        real = [row for row in fitting if row["run_id"] not in self.rehearsed]
        others = (found for key, found in rows.items() if key[1:] == tuple(wanted[1:]))
        return real or [
            row
            for found in others
            for row in found
            if row["run_id"] in self.rehearsed and self.holds(row, settings)
        ]

    def holds(self, run: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        """Return whether a run was configured so."""
        own = self.settings.get(run["run_id"], {})
        return all(own.get(key) == text for key, text in flatten(wanted).items())


def build_replication(
    table: Table, frame: pd.DataFrame, records: Records, target: Target, comparison: Comparison
) -> Table:
    """Return a printed table filled from a study, whose own table is `table`.

    A row is a score, under the row of the printed table that it belongs to. "ours" is mean ± std
    (n), "ours as published" the same runs aggregated as the paper did. `numbers` holds everything.
    """
    comparison = replace(comparison, baseline=target.baseline)
    runs = _gather(frame, records)
    cells = _fill_slots(target.slots, runs, comparison)
    letters: dict[tuple[str, ...], str] = {}
    lines = [(cell.slot.column, *_show(cell, letters)) for cell in cells]
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
        Candidate(
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
        if runs.rehearsed.intersection(ours.run_ids):
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
            scores[tuple(row[key] for key in NEEDED)].append(row)
    settings = {record["run_id"]: flatten(record["config"]) for record in records.records}
    rehearsed = frozenset(record["run_id"] for record in records.records if uses_stand_in(record))
    return _Runs(runs, scores, settings, rehearsed)


def _find_scores(slot: Slot, runs: _Runs) -> OurScores:
    fitting = runs.find(runs.scores, [slot.ours[key] for key in NEEDED], slot.settings)
    arm = [slot.ours[key] for key in _ARM]
    planned = {run["seed"] for run in runs.find(runs.runs, arm, slot.settings)}
    arms = sorted({(row["dataset"], row["arm"]) for row in fitting})
    chosen = sorted(fitting, key=lambda row: row["seed"]) if len(arms) == 1 else []
    return OurScores(
        seeds=tuple(row["seed"] for row in chosen),
        scores=tuple(row["value"] for row in chosen),
        planned=len(planned),
        run_ids=tuple(row["run_id"] for row in chosen),
        arms=arms,
    )


def _procedure(slot: Slot, seeds: int) -> Procedure:
    """Return how our number came about; a median or a maximum is taken as the paper did."""
    how = slot.theirs.aggregate if slot.theirs.aggregate in ("median", "max") else "mean"
    return Procedure(slot.ours["split"], how, seeds, _SELECTED_ON)


def _list_numbers(cell: FilledSlot) -> dict[str, Any]:
    """Return a line of the CSV file."""
    theirs, verdict = cell.slot.theirs, cell.verdict
    values = (theirs.score, theirs.value, theirs.unit, theirs.aggregate, theirs.seeds)
    values += (theirs.verified, verdict.ours, verdict.difference, verdict.expected)
    published = dict(zip(_THEIRS, (*values, "; ".join(verdict.differs)), strict=True))
    names = ("arm", *_NUMBERS, *COMPARED_COLUMNS)
    numbers = {name: getattr(cell, name) for name in names}
    line = {**cell.slot.ours, **numbers, **published, "row_label": cell.slot.row}
    return drop_points(line)


def _show(cell: FilledSlot, letters: dict[tuple[str, ...], str]) -> list[str]:
    """Return the texts of a line; `letters` names each set of differences in protocol."""
    verdict, theirs = cell.verdict, cell.slot.theirs
    printed = f"{100 * (theirs.score or 0):.2f} ({_count(theirs)})"
    if not cell.n:
        state = f"{len(cell.arms)} arms fit" if cell.arms else "not run"
        return [ABSENT, ABSENT, printed, ABSENT, state]
    judged = {True: "agrees", False: "disagrees", None: "open"}[verdict.expected]
    if verdict.differs:
        judged += f" ({letters.setdefault(verdict.differs, _letter(len(letters)))})"
    ours = render_scores(cell) + (MARK if cell.claimed else "")
    if STAND_IN in verdict.differs:
        return [ours, ABSENT, printed, ABSENT, STAND_IN]
    if math.isnan(verdict.ours):
        return [ours, ABSENT, printed, ABSENT, judged]
    apart = format_signed(100 * verdict.difference, 2)
    return [ours, f"{100 * verdict.ours:.2f}", printed, apart, judged]


def _count(theirs: Row) -> str:
    """Return of how many runs a published number is what."""
    if theirs.aggregate == "unknown":
        return "not stated"
    return f"{theirs.aggregate} of {theirs.seeds}" if (theirs.seeds or 0) > 1 else theirs.aggregate


def _letter(number: int) -> str:
    """Return the letter of a number from 0: a to z, then aa, ab and so on.

    >>> _letter(0), _letter(27)
    ('a', 'ab')
    """
    first, last = divmod(number, len(_LETTERS))
    return (_letter(first - 1) if first else "") + _LETTERS[last]


def _cite(target: Target) -> str:
    paper, table = target.published.paper, target.published.table
    number = f", table {table['number']}" if "number" in table else ""
    return f"{paper.get('authors', paper['title'])} {paper.get('year', '')}{number}".strip()


def _list_notes(
    target: Target,
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
    """Return a filled table as CSV, a line a cell, scores as fractions and in full."""
    return render_csv(_CSV, filled.numbers)
