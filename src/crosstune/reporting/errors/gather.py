"""Count the errors of a study's runs, item by item, and render them as CSV.

Reads predictions.parquet of every finished run by data set, language and model. Only counts and the
items that no run of an arm gets right stay in memory, whatever the number of runs.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosstune.errors import DataError
from crosstune.reporting.cells import Table
from crosstune.reporting.errors.judge import (
    Outcome,
    are_span_tags,
    count_item,
    describe_gold,
    describe_predictions,
    judge,
)
from crosstune.reporting.errors.predictions import KINDS, Key, RunPredictions, read_predictions
from crosstune.reporting.records import Records, list_runs
from crosstune.reporting.render import render_csv
from crosstune.runs.integrity import find_damage

_FORMS = {"extraction": "answers", "regression": "numbers"}
_SECTION = ("dataset", "train_language", "language", "model")
_TEXT_WIDTH = 200  # characters of a gold or predicted text in a CSV


@dataclass
class ErrorArm:
    """The errors of one arm, summed over its runs (one per seed).

    `tally` counts pairs of gold label or type and outcome; `wrong` has the items that no run got
    right, with the prediction of each run; `mistakes` counts wrong items over all runs. `counts`
    has the result of `count_item` for every item, by run, in the order of the section's golds;
    `item_scores` has the scores of single items by run and metric, where there are any.
    """

    run_ids: list[str] = field(default_factory=list)
    tally: Counter[Outcome] = field(default_factory=Counter)
    wrong: dict[Key, list[Any]] = field(default_factory=dict)
    mistakes: int = 0
    counts: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    item_scores: dict[str, dict[str, list[float]]] = field(default_factory=dict)


@dataclass
class Section:
    """The items of one data set, test language and model, and the errors of each arm.

    `form` is the form of an item: labels, sets, tags, spans, words, answers or numbers.
    """

    dataset: str
    train_language: str
    language: str
    model: str
    form: str
    golds: dict[Key, Any]
    arms: dict[str, ErrorArm] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    def add(self, arm: str, run_id: str, run: RunPredictions) -> None:
        """Count one run.

        Raises:
            DataError: the run was tested on other items, or cannot be judged.
        """
        if run.golds != self.golds:
            raise DataError([f"{self.language}: it was tested on other items than the runs before"])
        tally: Counter[Outcome] = Counter()
        wrong: dict[Key, Any] = {}
        counts = []
        for (key, gold), guess in zip(run.golds.items(), run.predictions, strict=True):
            outcomes, right = judge(self.form, gold, guess)
            tally.update(outcomes)
            counts.append(count_item(self.form, outcomes, right, self.codes))
            if not right:
                wrong[key] = guess
        errors = self.arms.setdefault(arm, ErrorArm())
        before = errors.wrong if errors.run_ids else dict.fromkeys(wrong, ())
        errors.wrong = {key: [*past, wrong[key]] for key, past in before.items() if key in wrong}
        errors.run_ids.append(run_id)
        errors.tally += tally
        errors.counts[run_id] = np.array(counts, np.int32)
        errors.item_scores[run_id] = run.item_scores
        errors.mistakes += len(wrong)

    def shared(self) -> dict[Key, list[Any]]:
        """Return the items that no run of any arm got right, with every run's prediction."""
        first, *rest = (arm.wrong for arm in self.arms.values())
        return {
            key: [*guesses, *(guess for wrong in rest for guess in wrong[key])]
            for key, guesses in first.items()
            if all(key in wrong for wrong in rest)
        }


@dataclass(frozen=True)
class Errors:
    """The errors of a study; `notes` name the runs whose predictions are not counted."""

    sections: Sequence[Section]
    notes: Sequence[str]


def gather_errors(table: Table, scores: pd.DataFrame, records: Records) -> Errors:
    """Return the errors of all runs that count, arms in the order of the table.

    Runs of task types without right and wrong, and runs without predictions, are skipped.
    """
    predicted = {}
    for record in records.records:
        kind, scheme = _read_kind(record["config"])
        path = records.folders[record["run_id"]] / "predictions.parquet"
        if record["status"] == "finished" and kind in KINDS and path.is_file():
            damage = find_damage(path.parent, record, [path.name])
            predicted[record["run_id"]] = (path, kind, scheme, damage)
    sections: dict[tuple[str, ...], Section] = {}
    notes = []
    for run in _order_runs(table, scores) if predicted else ():
        run_id = run["run_id"]
        if run_id not in predicted:
            continue
        path, kind, scheme, damage = predicted[run_id]
        try:
            if damage:
                raise DataError(damage)
            for language, predictions in read_predictions(path, kind).items():
                key = (run["dataset"], run["train_language"], language, run["model"])
                section = sections.get((*key, kind)) or Section(
                    *key, _choose_form(kind, scheme, predictions), predictions.golds
                )
                section.add(run["arm"], run_id, predictions)
                sections[*key, kind] = section  # a refused run must not define the items
        except DataError as error:
            notes.append(f"Predictions of run {run_id} ({run['arm']}), counted nowhere: {error}.")
    return Errors([section for _, section in sorted(sections.items())], notes)


def _order_runs(table: Table, scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the runs that count, in the order of the table's rows, then of their seeds."""
    rows = {(cell.model, cell.method, cell.arm): cell.row for cell in table.cells}
    counted = [
        (rows[run["model"], run["method"], run["arm"]], run["seed"], run["run_id"], run)
        for run in list_runs(scores)
        if run["status"] == "finished" and not run["superseded_by"]
    ]
    return [run for *_, run in sorted(counted, key=lambda entry: entry[:3])]


def _read_kind(config: Mapping[str, Any]) -> tuple[str, str | None]:
    data = config.get("data")
    data = data if isinstance(data, dict) else {}
    task = data.get("task")
    scheme = task.get("scheme") if isinstance(task, dict) else None
    return str(data.get("kind")), scheme if isinstance(scheme, str) else None


def _choose_form(kind: str, scheme: str | None, run: RunPredictions) -> str:
    golds = run.golds.values()
    if kind != "tagging":
        several = kind == "classification" and any(isinstance(gold, tuple) for gold in golds)
        return "sets" if several else _FORMS.get(kind, "labels")
    if scheme in ("tags", "words"):
        return scheme
    tags = {tag for row in (*golds, *run.predictions) for tag in row}
    return "spans" if are_span_tags(tags) else "tags"


def rank_distances(arm: ErrorArm, golds: Mapping[Key, float]) -> list[tuple[float, Key]]:
    """Return each item's absolute error, averaged over the runs, the largest first."""
    distances = [
        (math.fsum(abs(guess - golds[key]) for guess in guesses) / len(guesses), key)
        for key, guesses in arm.wrong.items()
    ]
    return sorted(distances, key=lambda entry: (-entry[0], entry[1]))


def clip(text: str, width: int) -> str:
    """Return at most `width` characters of a text.

    >>> clip("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= width else f"{text[: width - 1]}…"


def name_item(key: Key) -> str:
    """Return an item's id, with its number where several items have that id.

    >>> name_item(("7", 1)), name_item(("7", 2))
    ('7', '7 (2)')
    """
    return key[0] if key[1] == 1 else f"{key[0]} ({key[1]})"


def render_counts(errors: Errors) -> str:
    """Return every count as CSV, one line per arm x data set x language x gold x outcome.

    Column `found` is the predicted label or tag, or the outcome of a span or an answer.
    """
    headers = [*_SECTION, "arm", "form", "items", "runs", "gold", "found", "count"]
    return _render_arms(
        errors,
        headers,
        lambda section, arm: [
            (len(section.golds), len(arm.run_ids), *pair, count)
            for pair, count in sorted(arm.tally.items())
        ],
    )


def render_items(errors: Errors) -> str:
    """Return the items that no run of an arm got right as CSV, with golds and predictions.

    Numbers: all items, with the mean absolute error over the runs.
    """
    headers = [*_SECTION, "arm", "form", "runs", "id", "absolute_error", "gold", "predictions"]
    return _render_arms(errors, headers, _list_items)


def _list_items(section: Section, arm: ErrorArm) -> list[tuple[Any, ...]]:
    ranked = [(math.nan, key) for key in arm.wrong]
    if section.form == "numbers":
        ranked = rank_distances(arm, section.golds)
    return [
        (
            len(arm.run_ids),
            name_item(key),
            distance,
            *describe(section, key, arm.wrong[key], _TEXT_WIDTH),
        )
        for distance, key in ranked
    ]


def describe(section: Section, key: Key, guesses: Iterable[Any], width: int) -> tuple[str, str]:
    """Return gold and predictions of an item as texts of at most `width` characters."""
    gold = section.golds[key]
    texts = describe_gold(section.form, gold), describe_predictions(section.form, gold, guesses)
    return clip(texts[0], width), clip(texts[1], width)


def _render_arms(
    errors: Errors,
    headers: Sequence[str],
    lines: Callable[[Section, ErrorArm], list[tuple[Any, ...]]],
) -> str:
    return render_csv(
        headers,
        (
            dict(
                zip(
                    headers,
                    (*(getattr(section, name) for name in _SECTION), name, section.form, *line),
                    strict=True,
                )
            )
            for section in errors.sections
            for name, arm in section.arms.items()
            for line in lines(section, arm)
        ),
    )
