"""A cell's interval over other test sets as well as other seeds, from every run's predictions.

`errors.py` counts each item with `count_item`; `report.py` hands in the table's cells, which get
what `WIDENED` names. Which statistics these are is said in `compare.py`.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

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
from crosstune.reporting.tables import WIDENED, Table

_DRAWS = 400  # an interval's width is then known to 4 %
# Questions on one text: CMRC 2018 and ChID number them so, and DRCD.
_DOCUMENT = re.compile(r"(.+)_QUERY_\d+|(\d+-\d+)-\d+")


def name_cluster(item: str) -> str:
    """Return the document that an item's id names, or the id where it names none.

    >>> name_cluster("DEV_0_QUERY_2"), name_cluster("1001-10-1"), name_cluster("56be4db0")
    ('DEV_0', '1001-10', '56be4db0')
    """
    found = _DOCUMENT.fullmatch(item)
    return (found[1] or found[2]) if found else item


def widen(table: Table, errors: Errors, rule: SignificanceRule) -> Table:
    """Return the table with `WIDENED` in every cell: intervals over seeds and test sets.

    NaN where that cannot be said: without predictions of every seed, with fewer seeds than an
    interval takes, or where the metric is not one of counts. Each seed's recorded score must follow
    from what was counted, or nothing is said.
    """
    sections = {
        (one.dataset, one.train_language, one.language, one.model): one for one in errors.sections
    }
    drawn: dict[tuple[str, ...], Resampled] = {}
    for cell in table.cells:
        section = sections.get(_place(cell)) if cell["split"] == "test" else None
        arm = section.arms.get(cell["arm"]) if section else None
        if section and arm and cell["n"] >= rule.to_print:
            found = _resample(section, arm, cell)
            if found:
                drawn[(*_place(cell), cell["arm"])] = found
    return replace(table, cells=[cell | _say(cell, drawn, rule) for cell in table.cells])


def _place(cell: dict[str, Any]) -> tuple[str, str, str, str]:
    return cell["dataset"], cell["train_language"], cell["language"], cell["model"]


def _resample(section: Section, arm: ErrorArm, cell: dict[str, Any]) -> Resampled | None:
    runs = [arm.counts.get(run_id) for run_id in cell["run_ids"]]
    counted = [run for run in runs if run is not None]
    chosen = len(counted) == len(runs) and _choose(
        section.form, cell["metric"], np.stack(counted).astype(float)
    )
    if not chosen:
        return None
    counts, measure = chosen
    if not np.allclose(measure(counts.sum(axis=1)), cell["scores"], rtol=0, atol=1e-6):
        return None  # the metric is another than its name says
    clusters = [name_cluster(item) for item, _ in section.golds]
    return resample(sum_clusters(counts, clusters), measure, _DRAWS)


def _choose(form: str, metric: str, counts: Array) -> tuple[Array, Measure] | None:
    """Return counts per seed and item that a metric follows from, and how it does."""
    if form in ("tags", "answers"):
        return counts, measure_share
    if form in ("spans", "sets", "words"):
        return counts, measure_f1
    if form != "labels":
        return None
    gold, guess = counts[..., 0], counts[..., 1]
    right = gold == guess
    if metric != "macro_f1":
        return np.stack([right, np.ones_like(right)], axis=-1).astype(float), measure_share
    labels = np.arange(counts.max() + 1)
    is_gold, is_guess = gold[..., None] == labels, guess[..., None] == labels
    found = [is_gold & is_guess, is_guess & ~is_gold, is_gold & ~is_guess]
    return np.stack(found, axis=-1).astype(float), measure_macro_f1


def measure_macro_f1(totals: Array) -> Array:
    """Return the mean of F1 over the classes that occur, from (tp, fp, fn) of each class.

    >>> measure_macro_f1(np.array([[3.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])).item()
    0.875
    """
    return measure_f1(totals).sum(axis=-1) / (totals.sum(axis=-1) > 0).sum(axis=-1)


def _say(
    cell: dict[str, Any], drawn: dict[tuple[str, ...], Resampled], rule: SignificanceRule
) -> Any:
    own = drawn.get((*_place(cell), cell["arm"]))
    base = drawn.get((*_place(cell), cell["baseline"]))
    apart = None
    if own and base and cell["difference_seeds"] == cell["seeds"]:
        apart = own - base if own.scores.shape == base.scores.shape else None
    told = (*_ends(cell["scores"], own, rule), *_ends(cell["differences"], apart, rule))
    return dict(zip(WIDENED, (*told, own.clusters if own else math.nan), strict=True))


def _ends(
    scores: Sequence[float], drawn: Resampled | None, rule: SignificanceRule
) -> Iterable[float]:
    if drawn is None:
        return math.nan, math.nan
    found = estimate(scores, drawn, rule.level)
    return found.low, found.high
