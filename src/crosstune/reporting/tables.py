"""The comparison table of a study: rows are arms, columns data set x language x headline metric."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from crosstune.reporting.aggregate import ARM, list_validation, summarise_scores
from crosstune.reporting.arms import name_plan
from crosstune.reporting.cells import NOT_MEASURED, UNSCORED, Cell, ScoreSummary, Table
from crosstune.reporting.comparison import (
    COMPARED_COLUMNS,
    MARK,
    ArmScores,
    Comparison,
    compare_cells,
    explain_mark,
)
from crosstune.reporting.conditions import Row, compare_conditions
from crosstune.reporting.costs import average_costs, name_cost, render_cost
from crosstune.reporting.records import Records, list_runs
from crosstune.reporting.render import drop_points, render_csv
from crosstune.runs.record_schema import COSTS, uses_stand_in

Column = tuple[str, str, str, str, str]  # as `_column_of` lists them

_SHOWN_COSTS = ("trainable_parameters", "train_seconds", "peak_memory_bytes")
_MAX_FLAGS = 10  # arms that learned nothing and are named one by one
_CSV_COLUMNS = (
    *("model", "method", "arm", "dataset", "train_language", "split", "language", "metric"),
    *("mean", "std", "n", "planned", "seeds", *UNSCORED),
    *(name if name.endswith("_parameters") else f"{name}_mean" for name in COSTS),
    *("scores", *COMPARED_COLUMNS, "validation_mean", "validation_std", "validation_scores"),
    *("low_over_items", "high_over_items"),
    *("difference_low_over_items", "difference_high_over_items", "clusters", "conditions"),
)


def build_table(
    experiment: str,
    frame: pd.DataFrame,
    records: Records,
    comparison: Comparison | None = None,
) -> Table:
    """Return the table of a study: arms x (data set, language, headline metric), and costs.

    A cell is as `render_scores` says, with a mark behind it if it may be claimed to differ from the
    baseline. Costs are means over data sets.
    """
    comparison = comparison or Comparison()
    summaries = summarise_scores(frame)
    rows = sorted({_row_of(summary) for summary in summaries}, key=_natural_order)
    columns = sorted({_column_of(summary) for summary in summaries}, key=_column_order)
    models = sorted({model for model, *_ in rows})
    labels = {row: f"{row[0]} · {row[2]}" if len(models) > 1 else row[2] for row in rows}
    conditions = compare_conditions(frame, records, labels)
    group_of = {row: name for name, members in conditions.groups for row in members}
    labels = {
        row: f"{label} {{{group_of[row]}}}" if group_of.get(row) else label
        for row, label in labels.items()
    }
    positions = {key: i for keys in (rows, columns) for i, key in enumerate(keys)}
    cells = _make_cells(summaries, positions, group_of, list_validation(frame), comparison)
    grid = [[NOT_MEASURED] * len(columns) for _ in rows]
    for cell in cells:
        grid[cell.row][cell.column] = cell.text + (MARK if cell.claimed else "")
    costs = average_costs(cells, _SHOWN_COSTS)
    caption = f"{experiment}: mean ± standard deviation over seeds (number of seeds), in percentage"
    caption += f" points. Model: {models[0]}." if len(models) == 1 else " points."
    headers = tuple(map(label_column, columns))
    first = "method" if len(models) == 1 else "model · method"
    return Table(
        experiment=experiment,
        caption=caption + explain_mark(cells, comparison),
        headers=(first, *headers, *map(name_cost, _SHOWN_COSTS)),
        rows=tuple(
            (labels[row], *grid[i], *(render_cost(*cost) for cost in costs[i].items()))
            for i, row in enumerate(rows)
        ),
        notes=tuple(_list_notes(frame, records, labels)),
        columns=headers,
        cells=tuple(cells),
        flags=(*_flag_stand_ins(records), *_flag_warnings(records, frame), *conditions.flags),
        references=_list_majorities(records, frame, columns),
        groups=tuple(
            (name, tuple(positions[row] for row in members)) for name, members in conditions.groups
        ),
    )


def _make_cells(
    summaries: Sequence[ScoreSummary],
    positions: Mapping[tuple[str, ...], int],
    group_of: Mapping[Row, str],
    validation: Mapping[tuple[str, str], float],
    comparison: Comparison,
) -> list[Cell]:
    conditions = [group_of.get(_row_of(summary), "") for summary in summaries]
    compared = compare_cells(
        [
            ArmScores(
                (_column_of(summary), summary.model, name),
                summary.method,
                summary.arm,
                dict(zip(summary.seeds, summary.scores, strict=True)),
            )
            for summary, name in zip(summaries, conditions, strict=True)
        ],
        comparison,
    )
    cells = []
    for summary, name, interval in zip(summaries, conditions, compared, strict=True):
        scores = [validation.get((run, summary.language), math.nan) for run in summary.run_ids]
        measured = not all(map(math.isnan, scores))
        cells.append(
            Cell(
                **vars(summary),
                **vars(interval),
                row=positions[_row_of(summary)],
                column=positions[_column_of(summary)],
                conditions=name,
                validation_scores=tuple(scores) if measured else (),
            )
        )
    return cells


def _row_of(summary: ScoreSummary) -> Row:
    return summary.model, summary.method, summary.arm


def _column_of(summary: ScoreSummary) -> Column:
    return (
        summary.dataset,
        summary.train_language,
        summary.split,
        summary.language,
        summary.metric,
    )


def _natural_order(key: Sequence[str]) -> list[list[Any]]:
    """Return a sort key by which 20 comes before 100 and 1e-05 before 0.001.

    >>> sorted([("r=16",), ("r=8",), ("r=1e-05",)], key=_natural_order)
    [('r=1e-05',), ('r=8',), ('r=16',)]
    """
    parts = [re.split(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)", text) for text in key]
    natural = [[float(part) if i % 2 else part for i, part in enumerate(text)] for text in parts]
    return [*natural, list(key)]  # the text decides between 1 and 1.0


def _column_order(column: Column) -> tuple[Any, ...]:
    dataset, train, split, language, metric = column
    return dataset, metric, train, language != train, language, split


def label_column(column: Column) -> str:
    """Return the header of a score column: data set, languages, metric, and an unusual split.

    >>> label_column(("xnli", "en", "test", "es", "accuracy"))
    'xnli en→es accuracy'
    """
    dataset, train, split, language, metric = column
    languages = language if language == train else f"{train}→{language}"
    unusual = "" if split == "test" else f"({split})"
    return " ".join(part for part in (dataset, languages, metric, unusual) if part)


def _flag_stand_ins(records: Records) -> Iterable[str]:
    count = sum(map(uses_stand_in, records.records))
    if count:
        yield (
            f"{count} of {len(records.records)} runs are rehearsals on stand-in data, made up "
            "in place of the data set's own: their scores say nothing of it."
        )


def _flag_warnings(records: Records, frame: pd.DataFrame) -> Iterable[str]:
    """Yield which runs learned nothing, and what the first of each arm's runs says about it."""
    runs = {run["run_id"]: run for run in list_runs(frame)}
    arms: dict[tuple[str, ...], list[tuple[int, str]]] = defaultdict(list)
    for record in records.records:
        run, warnings = runs[record["run_id"]], record["warnings"]
        if warnings and not run["superseded_by"]:
            names = (run["arm"], run["dataset"], run["train_language"])
            arms[names].append((run["seed"], warnings[0]))
    for (arm, dataset, train), members in sorted(arms.items())[:_MAX_FLAGS]:
        seeds = ", ".join(str(seed) for seed, _ in sorted(members))
        yield f"{arm} on {dataset} {train}, seed {seeds}: learned nothing. {min(members)[1]}."
    if len(arms) > _MAX_FLAGS:
        yield f"{len(arms) - _MAX_FLAGS} more arms learned nothing; crosstune status lists them."


def _list_majorities(
    records: Records, frame: pd.DataFrame, columns: Sequence[Column]
) -> tuple[tuple[str, ...], ...]:
    """Return the row of what the majority of train's labels scores, if a run has measured it."""
    runs = {run["run_id"]: run for run in list_runs(frame)}
    scores: dict[Column, list[float]] = defaultdict(list)
    for record in records.records:
        run = runs[record["run_id"]]
        for split, languages in record["majority"].items():
            for language, metrics in languages.items():
                for metric, value in metrics.items():
                    names = (run["dataset"], run["train_language"], split, language, metric)
                    scores[names].append(value)
    if not any(scores.get(column) for column in columns):
        return ()
    means = [scores.get(column) for column in columns]
    cells = [f"{100 * math.fsum(m) / len(m):.1f}" if m else NOT_MEASURED for m in means]
    return (("majority", *cells, *[NOT_MEASURED] * len(_SHOWN_COSTS)),)


def _list_notes(frame: pd.DataFrame, records: Records, labels: Mapping[Row, str]) -> Iterable[str]:
    """Yield what a cell means, and every run that is not in a mean."""
    runs = list_runs(frame)
    yield (
        "Scores are of the test split unless the column says otherwise; ± is the sample standard "
        "deviation (n − 1). (2 of 3) counts finished seeds against all seeds that this study holds "
        "for the data set and model, whatever the method."
    )
    yield (
        "Costs are means over the finished runs of a data set, then over data sets. "
        f"{NOT_MEASURED} was not measured."
    )
    if any(record["majority"] for record in records.records):
        yield (
            "majority: what the most frequent label of train scores, given to every item (O for "
            "every word where tags mark spans)."
        )
    if "macro_f1" in {run["headline"] for run in runs}:
        yield (
            "macro_f1 is the mean of F1 over the labels that occur in gold or prediction, as "
            "scikit-learn's; macro_f1_all is over all labels of train and counts 0 for the others."
        )
    yield from _list_unscored(runs, labels)
    if any(run["arm"].endswith(" [?]") or run["dataset"].endswith("#?") for run in runs):
        yield "[?] and #? mark runs that left no record of their settings or files."
    for run in runs:
        if run["superseded_by"]:
            yield (
                f"Run {run['run_id']} ({run['arm']} on {run['dataset']}, seed {run['seed']}, "
                f"{run['status']}) is superseded by {run['superseded_by']}, which has the same "
                "settings, files and seed."
            )
    named = {run["run_id"] for run in runs}
    unnamed = [run_id for run_id in records.unfinished if run_id not in named]
    if unnamed:
        yield f"Unfinished, killed or still running: {', '.join(unnamed)}."
    for plan in records.missing:
        if name_plan(plan) not in named and "error" in plan:
            yield f"Planned, but refused: {name_plan(plan)}: {plan['error']}"
    for folder, reason in records.unreadable:
        yield f"Unreadable record in {folder}, counted nowhere: {reason}."


def _list_unscored(runs: Sequence[Mapping[str, Any]], labels: Mapping[Row, str]) -> Iterable[str]:
    """Yield a sentence for each arm some of whose seeds have no score."""
    planned, arms = defaultdict(set), defaultdict(list)
    for run in runs:
        planned[run["dataset"], run["model"]].add(run["seed"])
        if not run["superseded_by"]:
            arms[tuple(run[name] for name in ARM)].append(run)
    for (model, method, arm, dataset, train), members in sorted(arms.items()):
        seeds = defaultdict(list)
        for run in sorted(members, key=lambda run: run["seed"]):
            seeds[run["status"]].append(run["seed"])
        seeds["not run"] = sorted(planned[dataset, model] - {run["seed"] for run in members})
        listed = "; ".join(
            f"{status}: seed {', '.join(map(str, seeds[status]))}"
            for status in (*UNSCORED, "not run")
            if seeds[status]
        )
        if listed:
            yield f"{labels[model, method, arm]} on {dataset} {train}: {listed}."


def render_cells(cells: Iterable[Cell]) -> str:
    """Return the cells of a study's table as CSV; scores are fractions."""
    return render_csv(_CSV_COLUMNS, map(_list_numbers, cells))


def _list_numbers(cell: Cell) -> dict[str, Any]:
    costs = {
        name if name.endswith("_parameters") else f"{name}_mean": cost
        for name, cost in cell.costs.items()
    }
    flat = {name: getattr(cell, name, None) for name in _CSV_COLUMNS}
    return drop_points({**flat, **cell.unscored, **costs})
