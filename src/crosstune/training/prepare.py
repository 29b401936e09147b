"""What a run is, before it costs anything: options checked, data read and checked, a name given.

Called by `run.py` and by the worker of each rank.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crosstune.config.instantiate import check_target
from crosstune.config.schema import Data, Run, UnseenLabels
from crosstune.data.quality.duplicates import count_leakage
from crosstune.data.splits import Split, Splits, find_faults, find_unseen, merge_languages
from crosstune.data.synthetic.stand_in import read_data
from crosstune.errors import ConfigError, DataError, suggest
from crosstune.runs.fingerprint import compute_run_id, resolve_defaults
from crosstune.runs.tuned import apply_tuned
from crosstune.tasks import TASKS, Task

log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """A run that is known to make sense, and has a name."""

    run: Run
    run_id: str
    splits: Splits
    task: Task
    unseen: dict[str, int]  # split/language -> labels that train never shows
    leakage: dict[str, int]  # split/language -> rows that train holds too
    tuning: dict[str, Any]  # how the run's values were chosen, if they were

    @property
    def folder(self) -> Path:
        """Where the run leaves everything."""
        return Path(self.run.outputs) / self.run.experiment / self.run_id

    def training_texts(self) -> tuple[Iterator[str], str]:
        """Return the texts that a tokenizer may learn from, and a name of their content."""
        split = merge_languages(self.splits["train"])
        texts = [text for row in split.rows for text in self.task.row_texts(row)]
        return iter(texts), hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def prepare(run: Run) -> Prepared:
    """Check every option, read and check the data, and name the run.

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
    _check_spoken(run, splits)
    run, tuning = apply_tuned(run, splits)
    task = _build_task(run.data, splits)
    if faults := find_faults(splits, task.find_row_faults):
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
    run_id = compute_run_id(run, splits)
    counts = {name: len(faults) for name, faults in unseen.items()}
    chosen = {
        language: choose_rows(split, run.data, task.row_labels, run.seed)
        for language, split in splits["train"].items()
    }
    splits = {**splits, "train": chosen}
    leakage = count_leakage(splits, task.leakage_texts)
    for name, count in leakage.items():
        log.warning("%s: %d rows stand in train too; crosstune check lists them", name, count)
    return Prepared(run, run_id, splits, task, counts, leakage, tuning)


def _check_columns(data: Data) -> None:
    known = TASKS[data.kind].columns
    for column in ("text", "text_pair", "label", "target"):
        if getattr(data, column) is not None and column not in known:
            raise ConfigError(
                f"data.{column}: {data.kind.name} does not read columns by that name."
            )
        if column != "text_pair" and data.reader.get(column, "") is None:
            raise ConfigError(f"data.{column} is missing: give data.{column}=COLUMN.")


def _check_spoken(run: Run, splits: Splits) -> None:
    """Raise ConfigError unless every language has its adapter where any language has one."""
    if not (known := run.method.language_adapters):
        return
    if not (run.method.peft or {}).get("above_language"):
        raise ConfigError(f"method.language_adapters: not for method={run.method.name}, but madx.")
    if len(max(run.data.stages, key=len)) > 1:
        raise ConfigError(
            "method.language_adapters: languages trained on together share their batches, which "
            "one language's adapter cannot serve. Give data.in_turn=true, or one language."
        )
    asked = {*run.data.train_languages, *(name for split in splits.values() for name in split)}
    if silent := sorted(asked - set(known)):
        raise ConfigError(
            f"method.language_adapters: none for {', '.join(silent)}, which the data has. "
            f"Given: {', '.join(known)}."
        )


def _build_task(data: Data, splits: Splits) -> Task:
    kind = TASKS[data.kind]
    try:
        return kind.from_rows(merge_languages(splits["train"]).rows, **data.task)
    except TypeError as error:
        raise ConfigError(f"data.task={data.task}: {error}") from error


def _labels(
    rows: list[dict[str, Any]], labels_of: Callable[[dict[str, Any]], list[str]]
) -> set[str]:
    return {label for row in rows for label in labels_of(row)}


def choose_rows(
    split: Split, data: Data, labels_of: Callable[[dict[str, Any]], list[str]], seed: int
) -> Split:
    """Return the training rows that `data.limit` and `data.shots` leave, in the file's order.

    A row's place in the draw depends on the seed and its label alone, so fewer shots are always
    among more.

    Raises:
        ConfigError: shots are asked of a kind whose rows do not carry one label each.
        DataError: a label has fewer rows than shots.
    """
    rows = split.rows[: data.limit]
    lost = _labels(split.rows, labels_of) - _labels(rows, labels_of) if data.limit else set()
    if lost:
        log.warning(
            "data.limit=%d takes the first rows of train: none of them has the label %s",
            data.limit,
            " or ".join(repr(label) for label in sorted(lost)),
        )
    if data.shots is None:
        return Split(rows, split.digests)
    by_label: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        labels = labels_of(row)
        if len(labels) != 1:
            raise ConfigError(f"data.shots={data.shots}: {data.kind.name} has no label by row.")
        by_label.setdefault(labels[0], []).append(number)
    short = [
        f"{split.rows[0]['where'].rpartition(':')[0]}: {len(found)} training rows of label "
        f"{label!r}, but data.shots={data.shots}"
        for label, found in sorted(by_label.items())
        if len(found) < data.shots
    ]
    if short:
        raise DataError(short)
    kept = [
        number
        for label, found in sorted(by_label.items())
        for number in np.random.default_rng([seed, *label.encode()]).permutation(found)[
            : data.shots
        ]
    ]
    return Split([rows[number] for number in sorted(kept)], split.digests)
