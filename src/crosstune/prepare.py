"""What a run is, before it costs anything: options checked, data read and checked, a name given.

Called by `run.py` and by the worker of each rank.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from crosstune.build import check
from crosstune.data.split import Split
from crosstune.data.splits import Splits, find_faults, find_unseen, read_splits
from crosstune.errors import ConfigError, DataError, suggest
from crosstune.identity import identify, settle
from crosstune.schema import Data, Run, Unseen
from crosstune.tasks import TASKS, Task

log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """A run that is known to make sense, and has a name."""

    run: Run
    run_id: str
    splits: Splits
    task: Task
    unseen: dict[str, int]  # split/language -> labels that train never shows

    @property
    def folder(self) -> Path:
        """Where the run leaves everything."""
        return Path(self.run.outputs) / self.run.experiment / self.run_id

    def training_texts(self) -> tuple[Iterator[str], str]:
        """Return the texts that a tokenizer may learn from, and a name of their content."""
        (split,) = self.splits["train"].values()
        texts = (text for row in split.rows for text in self.task.texts_of(row))
        return texts, "-".join([*sorted(split.digests.values()), str(len(split.rows))])


def prepare(run: Run) -> Prepared:
    """Check every option, read and check the data, and name the run.

    Raises:
        ConfigError: an option does not fit.
        DataError: the data is malformed or does not fit the task.
    """
    run = settle(run)
    _check_columns(run.data)
    for where in ("data.reader", "model.config", "method.peft", "optimizer.algorithm"):
        group, key = where.split(".")
        check(getattr(getattr(run, group), key), where, run.allow)
    splits = read_splits(run.data, run.allow)
    task = _build_task(run.data, splits)
    if faults := find_faults(splits, task.faults_of):
        raise DataError(faults)
    unseen = find_unseen(splits, task.labels, task.labels_of)
    if unseen and run.data.unseen_labels is Unseen.error:
        raise DataError([fault for faults in unseen.values() for fault in faults])
    for name, faults in unseen.items():
        log.warning("%s: %d labels that train never shows, scored as missed", name, len(faults))
        log.warning("the first: %s", faults[0])
    if run.data.metric not in task.metrics:
        raise ConfigError(
            f"data.metric={run.data.metric}. {suggest(run.data.metric, task.metrics)}"
        )
    run_id = identify(run, splits)
    counts = {name: len(faults) for name, faults in unseen.items()}
    return Prepared(run, run_id, _limit(splits, run.data), task, counts)


def _check_columns(data: Data) -> None:
    known = TASKS[data.kind].columns
    for column in ("text", "text_pair", "label"):
        if getattr(data, column) is not None and column not in known:
            raise ConfigError(
                f"data.{column}: {data.kind.name} does not read columns by that name."
            )
        if column != "text_pair" and data.reader.get(column, "") is None:
            raise ConfigError(f"data.{column} is missing: give data.{column}=COLUMN.")


def _build_task(data: Data, splits: Splits) -> Task:
    kind = TASKS[data.kind]
    (train,) = splits["train"].values()
    try:
        return kind.from_rows(train.rows, **data.task)
    except TypeError as error:
        raise ConfigError(f"data.task={data.task}: {error}") from error


def _limit(splits: Splits, data: Data) -> Splits:
    if data.limit is None:
        return splits
    limited = {
        language: Split(split.rows[: data.limit], split.digests)
        for language, split in splits["train"].items()
    }
    return {**splits, "train": limited}
