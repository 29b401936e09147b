"""What the runs of a study got wrong, item by item: confusions, kinds of mistakes, hard items.

Gathers predictions.parquet of every finished run by data set, language and model; one item is
judged in `outcomes.py`, and `page.py` shows what is found here. Only counts and the items that an
arm never gets right are kept, so a study of any number of runs fits into memory.
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
    count_item,
    describe_gold,
    describe_predictions,
    highlight_spans,
    judge,
)
from crosstune.reporting.errors.predictions import KINDS, Key, RunPredictions, read_predictions
from crosstune.reporting.records import Records, list_runs
from crosstune.reporting.render import render_csv

_FORMS = {"extraction": "answers", "regression": "numbers"}
_PLACE = ("dataset", "train_language", "language", "model")
_TEXT = 200  # characters of a gold or predicted text in a CSV
_OTHERS = "others"


@dataclass
class ErrorArm:
    """The mistakes of one arm, summed over its runs (one a seed).

    `tally` counts (gold label or type, outcome); `wrong` are the items that no run got right, with
    the prediction of each run; `mistakes` counts wrong items over all runs. `counts` has for each
    run what `outcomes.count_item` says of every item, in the order of the section's golds.
    """

    run_ids: list[str] = field(default_factory=list)
    tally: Counter[Outcome] = field(default_factory=Counter)
    wrong: dict[Key, list[Any]] = field(default_factory=dict)
    mistakes: int = 0
    counts: dict[str, NDArray[np.int32]] = field(default_factory=dict)


@dataclass
class Section:
    """One data set, tested in one language, by one model: its items and the arms' mistakes.

    `form` is what an item holds: labels, sets, tags, spans, words, answers or numbers.
    """

    dataset: str
    train_language: str
    language: str
    model: str
    form: str
    golds: dict[Key, Any]
    arms: dict[str, ErrorArm] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    def add(self, arm: str, run_id: str, answers: RunPredictions) -> None:
        """Count one run.

        Raises:
            DataError: the run was tested on other items, or cannot be judged.
        """
        if answers.golds != self.golds:
            raise DataError([f"{self.language}: it was tested on other items than the runs before"])
        tally: Counter[Outcome] = Counter()
        wrong: dict[Key, Any] = {}
        counts = []
        for (key, gold), guess in zip(answers.golds.items(), answers.predictions, strict=True):
            outcomes, right = judge(self.form, gold, guess)
            tally.update(outcomes)
            counts.append(count_item(self.form, outcomes, right, self.codes))
            if not right:
                wrong[key] = guess
        mine = self.arms.setdefault(arm, ErrorArm())
        first = not mine.run_ids
        mine.run_ids.append(run_id)
        mine.tally += tally
        mine.counts[run_id] = np.array(counts, np.int32)
        mine.mistakes += len(wrong)
        before = dict.fromkeys(wrong, ()) if first else mine.wrong
        mine.wrong = {key: [*past, wrong[key]] for key, past in before.items() if key in wrong}

    def shared(self) -> dict[Key, list[Any]]:
        """Return the items that no run of any arm got right, with every run's prediction."""
        first, *others = (arm.wrong for arm in self.arms.values())
        return {
            key: [*guesses, *(guess for other in others for guess in other[key])]
            for key, guesses in first.items()
            if all(key in other for other in others)
        }


@dataclass(frozen=True)
class Errors:
    """The errors of a study; `notes` name the runs whose predictions are counted nowhere."""

    sections: Sequence[Section]
    notes: Sequence[str]


def gather_errors(table: Table, scores: pd.DataFrame, records: Records) -> Errors:
    """Return the errors of all runs that count, arms in the order of the table.

    Runs of a task kind without right and wrong, or without predictions, are passed over.
    """
    answered = {}
    for record in records.records:
        kind, scheme = _read_kind(record["config"])
        path = records.folders[record["run_id"]] / "predictions.parquet"
        if record["status"] == "finished" and kind in KINDS and path.is_file():
            answered[record["run_id"]] = (path, kind, scheme)
    sections: dict[tuple[str, ...], Section] = {}
    notes = []
    for run in _order_runs(table, scores) if answered else ():
        run_id = run["run_id"]
        if run_id not in answered:
            continue
        path, kind, scheme = answered[run_id]
        try:
            for language, answers in read_predictions(path, kind).items():
                key = (run["dataset"], run["train_language"], language, run["model"])
                section = sections.get((*key, kind)) or Section(
                    *key, _form(kind, scheme, answers), answers.golds
                )
                section.add(run["arm"], run_id, answers)
                sections[*key, kind] = section  # only now: a run that is refused sets no standard
        except DataError as error:
            notes.append(f"Predictions of run {run_id} ({run['arm']}), counted nowhere: {error}.")
    return Errors([section for _, section in sorted(sections.items())], notes)


def _order_runs(table: Table, scores: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the runs that count, in the order of the table's rows, then of their seeds."""
    place = {(cell.model, cell.method, cell.arm): cell.row for cell in table.cells}
    counted = [
        (place[run["model"], run["method"], run["arm"]], run["seed"], run["run_id"], run)
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


def _form(kind: str, scheme: str | None, answers: RunPredictions) -> str:
    golds = answers.golds.values()
    if kind != "tagging":
        several = kind == "classification" and any(isinstance(gold, tuple) for gold in golds)
        return "sets" if several else _FORMS.get(kind, "labels")
    if scheme in ("tags", "words"):
        return scheme
    tags = {tag for row in (*golds, *answers.predictions) for tag in row}
    return "spans" if highlight_spans(tags) else "tags"


@dataclass(frozen=True)
class Confusion:
    """Counts of gold (rows) against predicted labels (columns), in the order of `labels`.

    Where labels had to be left out, the last row and column sum them up, and `left_out` is their
    number.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    left_out: int


def choose_labels(tallies: Iterable[Mapping[Outcome, int]], most: int = 30) -> tuple[str, ...]:
    """Return the most frequent labels, gold or predicted, in alphabetical order.

    >>> choose_labels([{("b", "b"): 3, ("a", "b"): 1, ("c", "a"): 2}], most=2)
    ('a', 'b')
    """
    frequency: Counter[str] = Counter()
    for tally in tallies:
        for pair, count in tally.items():
            frequency.update(dict.fromkeys(pair, count))
    ordered = sorted(frequency, key=lambda label: (-frequency[label], label))
    return tuple(sorted(ordered[:most]))


def build_confusion(tally: Mapping[Outcome, int], labels: Sequence[str]) -> Confusion:
    """Return the matrix of a tally over `labels`; all other labels become one.

    >>> build_confusion({("a", "a"): 2, ("a", "b"): 1, ("c", "b"): 4}, ["a", "b"]).counts
    ((2, 1, 0), (0, 0, 0), (0, 4, 0))
    """
    place = {label: number for number, label in enumerate(labels)}
    others = {label for pair in tally for label in pair} - set(labels)
    size = len(labels) + bool(others)
    counts = [[0] * size for _ in range(size)]
    for (gold, found), count in tally.items():
        counts[place.get(gold, size - 1)][place.get(found, size - 1)] += count
    named = (*labels, f"{_OTHERS} ({len(others)})") if others else tuple(labels)
    return Confusion(named, tuple(map(tuple, counts)), len(others))


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

    `found` is the predicted label or tag, or what became of a span or an answer.
    """
    headers = [*_PLACE, "arm", "form", "items", "runs", "gold", "found", "count"]
    return _render(
        errors,
        headers,
        lambda section, arm: [
            (len(section.golds), len(arm.run_ids), *pair, count)
            for pair, count in sorted(arm.tally.items())
        ],
    )


def render_items(errors: Errors) -> str:
    """Return the items that no run of an arm got right as CSV, with golds and predictions.

    Of numbers it holds all items, with the mean absolute error over the runs.
    """
    headers = [*_PLACE, "arm", "form", "runs", "id", "absolute_error", "gold", "predictions"]
    return _render(errors, headers, _item_lines)


def _item_lines(section: Section, arm: ErrorArm) -> list[tuple[Any, ...]]:
    ranked = [(math.nan, key) for key in arm.wrong]
    if section.form == "numbers":
        ranked = rank_distances(arm, section.golds)
    return [
        (len(arm.run_ids), name_item(key), distance, *describe(section, key, arm.wrong[key], _TEXT))
        for distance, key in ranked
    ]


def describe(section: Section, key: Key, guesses: Iterable[Any], width: int) -> tuple[str, str]:
    """Return gold and predictions of an item as texts of at most `width` characters."""
    gold = section.golds[key]
    texts = describe_gold(section.form, gold), describe_predictions(section.form, gold, guesses)
    return clip(texts[0], width), clip(texts[1], width)


def _render(
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
                    (*(getattr(section, name) for name in _PLACE), name, section.form, *line),
                    strict=True,
                )
            )
            for section in errors.sections
            for name, arm in section.arms.items()
            for line in lines(section, arm)
        ),
    )
