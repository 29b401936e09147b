"""Prepare a run: check its options, read and check its data, compute its id.

The process of a run does it once; the ranks of a run on several devices get its findings.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crosstune.config.instantiate import check_target
from crosstune.config.schema import Data, Run, UnseenLabels
from crosstune.data.quality.duplicates import count_leakage
from crosstune.data.splits import (
    Split,
    Splits,
    find_faults,
    find_label_variants,
    find_unseen,
    merge_languages,
)
from crosstune.data.synthetic.stand_in import read_data
from crosstune.errors import ConfigError, DataError, suggest
from crosstune.methods.madx import check_language_adapters
from crosstune.models.resolve import resolve_defaults
from crosstune.runs.fingerprint import compute_run_id
from crosstune.runs.tuned import apply_tuned
from crosstune.tasks import TASKS, Task
from crosstune.training.schedule import resolve_schedule

log = logging.getLogger(__name__)


class PrepareFindings(NamedTuple):
    """The findings of `prepare`; plain values."""

    run_id: str
    unseen: dict[str, int]  # split/language -> labels that do not occur in train
    leakage: dict[str, int]  # split/language -> rows that are in train, too
    tuning: dict[str, Any]  # how tuned values were chosen; empty without


class Prepared(NamedTuple):
    """A run whose options and data are checked."""

    run: Run
    splits: Splits
    task: Task
    checks: PrepareFindings

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.checks.run_id

    @property
    def folder(self) -> Path:
        """The folder of all files of the run."""
        return Path(self.run.outputs) / self.run.experiment / self.run_id

    def tokenizer_texts(self) -> tuple[list[str], str]:
        """Return the texts that decide a tokenizer's vocabulary, and the digest of their content.

        A new tokenizer is trained on train; with `model.languages`, no text may lose a subword.
        """
        names = ("train",) if self.run.model.languages is None else self.splits
        rows = [row for name in names for row in merge_languages(self.splits[name]).rows]
        texts = [text for row in rows for text in self.task.row_texts(row)]
        return texts, hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def prepare(run: Run) -> Prepared:
    """Check every option, read and check the data, and compute the run id.

    Raises:
        ConfigError: an option does not fit.
        DataError: the data is malformed or does not fit the task.
    """
    run = resolve_defaults(run)
    _check_columns(run.data)
    for where in ("data.reader", "model.config", "method.peft", "optimizer.algorithm"):
        group, key = where.split(".")
        check_target(getattr(getattr(run, group), key), where, run.allow)
    splits = read_data(run)
    if run.trainer.stand_in:
        log.warning("stand-in data: a rehearsal, no score of this run means anything")
    languages = {language for split in splits.values() for language in split}
    check_language_adapters(run, languages.union(run.data.train_languages))
    run, tuning = apply_tuned(run, splits)
    task = _build_task(run.data, splits)
    if faults := find_faults(splits, task.find_row_faults):
        raise DataError(faults)
    if faults := find_label_variants(splits, task.row_labels):
        raise DataError(faults)
    unseen = find_unseen(splits, task.labels, task.row_labels)
    if unseen and run.data.unseen_labels is UnseenLabels.error:
        raise DataError([fault for faults in unseen.values() for fault in faults])
    for name, faults in unseen.items():
        log.warning("%s: %d labels that train never shows, scored as missed", name, len(faults))
        log.warning("the first: %s", faults[0])
    if run.data.metric not in task.metrics:
        raise ConfigError(
            f"data.metric={run.data.metric}. {suggest(run.data.metric, task.metrics)}"
        )
    run = resolve_schedule(run, splits)
    run_id = compute_run_id(run, splits)
    splits = _choose_training_rows(splits, task, run)
    leakage = count_leakage(splits, task.leakage_texts)
    for name, count in leakage.items():
        log.warning("%s: %d rows stand in train too; crosstune check lists them", name, count)
    counts = {name: len(faults) for name, faults in unseen.items()}
    return Prepared(run, splits, task, PrepareFindings(run_id, counts, leakage, tuning))


def prepare_rank(run: Run, checks: PrepareFindings) -> Prepared:
    """Return what `prepare` returned in the process that started this rank; checks nothing."""
    splits = read_data(run)
    task = _build_task(run.data, splits)
    return Prepared(run, _choose_training_rows(splits, task, run), task, checks)


def _check_columns(data: Data) -> None:
    known = TASKS[data.kind].columns
    for column in ("text", "text_pair", "label", "target"):
        if getattr(data, column) is not None and column not in known:
            raise ConfigError(
                f"data.{column}: {data.kind.name} does not read columns by that name."
            )
        if column != "text_pair" and data.reader.get(column, "") is None:
            raise ConfigError(f"data.{column} is missing: give data.{column}=COLUMN.")


def _build_task(data: Data, splits: Splits) -> Task:
    task_class = TASKS[data.kind]
    try:
        return task_class.from_rows(merge_languages(splits["train"]).rows, **data.task)
    except TypeError as error:
        raise ConfigError(f"data.task={data.task}: {error}") from error


def _choose_training_rows(splits: Splits, task: Task, run: Run) -> Splits:
    train = {
        language: choose_rows(split, run.data, task.row_labels, run.seed)
        for language, split in splits["train"].items()
    }
    return {**splits, "train": train}


def choose_rows(
    split: Split, data: Data, labels_of: Callable[[dict[str, Any]], list[str]], seed: int
) -> Split:
    """Return the training rows that `data.limit` and `data.shots` select, in the file's order.

    The draw depends on the seed and the label alone, so fewer shots are always among more.

    Raises:
        ConfigError: `data.shots` is set for a task whose rows do not carry one label each.
        DataError: a label has fewer rows than shots.
    """
    rows = split.rows[: data.limit]
    if len(rows) < len(split.rows):
        labels = [
            {label for row in part for label in labels_of(row)} for part in (split.rows, rows)
        ]
        if lost := labels[0] - labels[1]:
            log.warning(
                "data.limit=%d takes the first rows of train: none of them has the label %s",
                data.limit,
                " or ".join(repr(label) for label in sorted(lost)),
            )
    if data.shots is None:
        return Split(rows, split.digests)
    by_label: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        labels = labels_of(row)
        if len(labels) != 1:
            raise ConfigError(f"data.shots={data.shots}: {data.kind.name} has no label by row.")
        by_label.setdefault(labels[0], []).append(index)
    if short := [
        f"{split.rows[0]['where'].rpartition(':')[0]}: {len(indices)} training rows of label "
        f"{label!r}, but data.shots={data.shots}"
        for label, indices in sorted(by_label.items())
        if len(indices) < data.shots
    ]:
        raise DataError(short)
    chosen: list[int] = []
    for label, indices in by_label.items():
        rng = np.random.default_rng([seed, *label.encode()])
        chosen += rng.permutation(indices)[: data.shots].tolist()
    return Split([rows[index] for index in sorted(chosen)], split.digests)
