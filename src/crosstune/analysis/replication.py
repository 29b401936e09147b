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

from crosstune.analysis.arms import flatten
from crosstune.analysis.costs import ABSENT
from crosstune.analysis.differences import (
    COMPARED,
    MARK,
    Comparison,
    compare_cells,
    explain_mark,
    signed,
)
from crosstune.analysis.frame import Records, list_rows, list_runs
from crosstune.analysis.layouts import NEEDED, Slot, Target
from crosstune.analysis.lines import render_lines
from crosstune.analysis.printed import Procedure, Row
from crosstune.analysis.stats import mean_std
from crosstune.analysis.tables import Table, cell_text, plain_number
from crosstune.analysis.verdict import Verdict, judge_published

_ARM = ("model", "method", "data", "train_language")
_NUMBERS = ("mean", "std", "n", "planned", "seeds", "scores", "run_ids")
_THEIRS = ("published", "published_value", "published_unit", "published_aggregate")
_THEIRS += ("published_seeds", "verified", "ours_as_published", "difference_to_published")
_THEIRS += ("expected", "protocol")
_HEADERS = ("score", "ours", "ours as published", "published", "difference", "verdict")
_SELECTED_ON = "validation"  # where every run of ours chooses its checkpoint
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class _Runs:
    """The runs of a study: by arm, and the scores of those that count by what `NEEDED` names."""

    runs: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]]
    scores: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]]
    settings: Mapping[str, Mapping[str, str]]

    def holds(self, run: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        """Return whether a run was configured so."""
        own = self.settings.get(run["run_id"], {})
        return all(own.get(key) == text for key, text in flatten(wanted).items())


def build_replication(
    table: Table, frame: pd.DataFrame, records: Records, target: Target, comparison: Comparison
) -> Table:
    """Return a printed table filled from a study, whose own table is `table`.

    A row is a score, under the row of the printed table that it belongs to. "ours" is mean ± std
    (n), "ours as published" the same runs aggregated as the paper did. `cells` holds everything.
    """
    comparison = replace(comparison, baseline=target.baseline)
    runs = _gather(frame, records)
    columns: dict[str, int] = {}
    cells = []
    for slot in target.slots:
        place = {"row": len(cells), "column": columns.setdefault(slot.column, len(columns))}
        cells.append({**slot.ours, "row_label": slot.row, **place, **_fill(slot, runs)})
    compare_cells(cells, comparison)
    letters: dict[tuple[str, ...], str] = {}
    lines = []
    for slot, cell in zip(target.slots, cells, strict=True):
        verdict = judge_published(
            cell["scores"], _procedure(cell, slot.theirs), slot.theirs, comparison.rule
        )
        cell |= _tell(verdict, slot.theirs)
        lines.append((slot.column, *_show(cell, verdict, slot.theirs, letters)))
    names = [*NEEDED, "arm", *_NUMBERS, *COMPARED, *_THEIRS, "row", "row_label"]
    return Table(
        experiment=table.experiment,
        caption=f"{table.experiment} beside {_cite(target)}, in percentage points; ours: mean ± "
        "standard deviation over seeds (number of seeds)." + explain_mark(cells, comparison),
        headers=_HEADERS,
        rows=tuple(lines),
        notes=tuple(_list_notes(target, cells, letters, comparison)),
        cells=pd.DataFrame(cells, columns=names),
        flags=table.flags,
        groups=tuple(
            (name, tuple(cell["row"] for cell in group))
            for name, group in groupby(cells, lambda cell: cell["row_label"])
        ),
    )


def _gather(frame: pd.DataFrame, records: Records) -> _Runs:
    runs, scores = defaultdict(list), defaultdict(list)
    for run in list_runs(frame):
        if not run["superseded_by"]:
            runs[tuple(run[key] for key in _ARM)].append(run)
    counted = frame.query("status == 'finished' and superseded_by == ''", engine="python")
    names = [*NEEDED, "run_id", "dataset", "arm", "seed", "value"]
    for row in list_rows(pd.DataFrame(counted, columns=names)):
        scores[tuple(row[key] for key in NEEDED)].append(row)
    settings = {record["run_id"]: flatten(record["config"]) for record in records.records}
    return _Runs(runs, scores, settings)


def _fill(slot: Slot, runs: _Runs) -> dict[str, Any]:
    """Return our part of a cell; without scores where several arms fit."""
    fitting = [
        row
        for row in runs.scores.get(tuple(slot.ours[key] for key in NEEDED), ())
        if runs.holds(row, slot.settings)
    ]
    planned = {
        run["seed"]
        for run in runs.runs.get(tuple(slot.ours[key] for key in _ARM), ())
        if runs.holds(run, slot.settings)
    }
    arms = sorted({(row["dataset"], row["arm"]) for row in fitting})
    kept = sorted(fitting, key=lambda row: row["seed"]) if len(arms) == 1 else []
    scores = tuple(row["value"] for row in kept)
    mean, std = mean_std(scores)
    return {
        "arm": arms[0][1] if len(arms) == 1 else "",
        "arms": arms,
        "conditions": "",
        "mean": mean,
        "std": std,
        "n": len(kept),
        "planned": len(planned),
        "seeds": tuple(row["seed"] for row in kept),
        "scores": scores,
        "run_ids": tuple(row["run_id"] for row in kept),
    }


def _procedure(cell: Mapping[str, Any], theirs: Row) -> Procedure:
    """Return how our number came about; a median or a maximum is taken as the paper did."""
    how = theirs.aggregate if theirs.aggregate in ("median", "max") else "mean"
    return Procedure(cell["split"], how, cell["n"], _SELECTED_ON)


def _tell(verdict: Verdict, theirs: Row) -> dict[str, Any]:
    values = (theirs.score, theirs.value, theirs.unit, theirs.aggregate, theirs.seeds)
    values += (theirs.verified, verdict.ours, verdict.difference, verdict.expected)
    return dict(zip(_THEIRS, (*values, "; ".join(verdict.differs)), strict=True))


def _show(
    cell: Mapping[str, Any], verdict: Verdict, theirs: Row, letters: dict[tuple[str, ...], str]
) -> list[str]:
    """Return the texts of a line; `letters` names each set of differences in protocol."""
    printed = f"{100 * cell['published']:.2f} ({_count(theirs)})"
    if not cell["n"]:
        state = f"{len(cell['arms'])} arms fit" if cell["arms"] else "not run"
        return [ABSENT, ABSENT, printed, ABSENT, state]
    judged = {True: "agrees", False: "disagrees", None: "open"}[verdict.expected]
    if verdict.differs:
        judged += f" ({letters.setdefault(verdict.differs, _letter(len(letters)))})"
    ours = cell_text(cell) + (MARK if cell["claimed"] else "")
    if math.isnan(verdict.ours):
        return [ours, ABSENT, printed, ABSENT, judged]
    apart = signed(100 * verdict.difference, 2)
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
    cells: Sequence[Mapping[str, Any]],
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
    """Return a filled table as CSV, a line a cell, scores as fractions and in full."""
    names = [name for name in filled.cells.columns.tolist() if name not in ("row", "differences")]
    rows = list_rows(filled.cells)
    return render_lines(names, ([_in_full(row[name]) for name in names] for row in rows))


def _in_full(value: Any) -> Any:
    return "" if value is None else plain_number(value)
