"""A cell's interval over test sets as well as seeds, from the predictions of every run.

See `statistics.py` for the method.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crosstune.reporting.cells import Cell, Table
from crosstune.reporting.errors.gather import ErrorArm, Errors, Section
from crosstune.reporting.statistics import (
    Array,
    Measure,
    Resampled,
    SignificanceRule,
    estimate,
    measure_f1,
    measure_share,
    resample,
    sum_clusters,
)

_DRAWS = 400  # the width of an interval is then known to 4 %
# Ids of questions on one text, in CMRC 2018 and ChID, and in DRCD.
_QUESTION = re.compile(r"(.+)_QUERY_\d+|(\d+-\d+)-\d+")


def name_cluster(item: str) -> str:
    """Return the document that an item's id names, or the id where it names none.

    >>> name_cluster("DEV_0_QUERY_2"), name_cluster("1001-10-1"), name_cluster("56be4db0")
    ('DEV_0', '1001-10', '56be4db0')
    """
    match = _QUESTION.fullmatch(item)
    return (match[1] or match[2]) if match else item


def add_item_intervals(table: Table, errors: Errors, rule: SignificanceRule) -> Table:
    """Return the table with intervals over seeds and test sets in its cells.

    They stay NaN without predictions of every seed, with fewer seeds than an interval takes, and
    where the metric does not follow from counts. Each seed's recorded score must follow from the
    counts; if not, the metric is another than its name says.
    """
    sections = {
        (one.dataset, one.train_language, one.language, one.model): one for one in errors.sections
    }
    drawn: dict[tuple[str, ...], Resampled] = {}
    for cell in table.cells:
        section = sections.get(_section_of(cell)) if cell.split == "test" else None
        arm = section.arms.get(cell.arm) if section else None
        if section and arm and cell.n >= rule.to_print:
            resampled = _resample(section, arm, cell)
            if resampled:
                drawn[*_section_of(cell), cell.arm] = resampled
    return replace(table, cells=tuple(_add_intervals(cell, drawn, rule) for cell in table.cells))


def _section_of(cell: Cell) -> tuple[str, str, str, str]:
    return cell.dataset, cell.train_language, cell.language, cell.model


def _resample(section: Section, arm: ErrorArm, cell: Cell) -> Resampled | None:
    runs = [run_id for run_id in cell.run_ids if run_id in arm.counts]
    if len(runs) < cell.n:
        return None
    scores = [arm.item_scores[run_id].get(cell.metric) for run_id in runs]
    if all(scores):  # the metric is the mean of the items' own scores
        items = np.array(scores)
        counts, measure = np.stack([items, np.ones_like(items)], axis=-1), measure_share
    else:
        stacked = np.stack([arm.counts[run_id] for run_id in runs]).astype(float)
        chosen = _choose_measure(section.form, cell.metric, stacked)
        if not chosen:
            return None
        counts, measure = chosen
    if not np.allclose(measure(counts.sum(axis=1)), cell.scores, rtol=0, atol=1e-6):
        return None
    clusters = [name_cluster(item) for item, _ in section.golds]
    return resample(sum_clusters(counts, clusters), measure, _DRAWS)


def _choose_measure(form: str, metric: str, counts: Array) -> tuple[Array, Measure] | None:
    """Return counts per seed and item, and the measure that gives the metric from their sum."""
    if form in ("tags", "answers"):
        return counts, measure_share
    if form in ("spans", "sets", "words"):
        return counts, measure_f1
    if form != "labels":
        return None
    gold, prediction = counts[..., 0], counts[..., 1]
    if metric != "macro_f1":
        correct = gold == prediction
        return np.stack([correct, np.ones_like(correct)], axis=-1).astype(float), measure_share
    labels = np.arange(counts.max() + 1)
    is_gold, is_predicted = gold[..., None] == labels, prediction[..., None] == labels
    outcomes = [is_gold & is_predicted, is_predicted & ~is_gold, is_gold & ~is_predicted]
    return np.stack(outcomes, axis=-1).astype(float), measure_macro_f1


def measure_macro_f1(totals: Array) -> Array:
    """Return the mean of F1 over the classes that occur, from (tp, fp, fn) of each class.

    >>> measure_macro_f1(np.array([[3.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])).item()
    0.875
    """
    return measure_f1(totals).sum(axis=-1) / (totals.sum(axis=-1) > 0).sum(axis=-1)


def _add_intervals(
    cell: Cell, drawn: dict[tuple[str, ...], Resampled], rule: SignificanceRule
) -> Cell:
    ours = drawn.get((*_section_of(cell), cell.arm))
    if not ours:
        return cell
    cell = replace(cell, clusters=ours.clusters, **_estimate("", cell.scores, ours, rule))
    baseline = drawn.get((*_section_of(cell), cell.baseline))
    comparable = baseline and baseline.scores.shape == ours.scores.shape
    if not (baseline and comparable and cell.difference_seeds == cell.seeds):
        return cell
    return replace(cell, **_estimate("difference_", cell.differences, ours - baseline, rule))


def _estimate(
    prefix: str, scores: Sequence[float], drawn: Resampled, rule: SignificanceRule
) -> dict[str, Any]:
    interval = estimate(scores, drawn, rule.level)
    return {f"{prefix}low_over_items": interval.low, f"{prefix}high_over_items": interval.high}
