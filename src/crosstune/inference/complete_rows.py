"""Completes unlabelled rows with all that a task encodes, from files and requests alike.

Labels are never known: a placeholder that the task accepts, and no prediction depends on, stands
in their place.
"""

import re
from collections.abc import Sequence
from typing import Any

from crosstune.config.schema import TaskType
from crosstune.data.readers.relations import unmark
from crosstune.errors import ConfigError, DataError
from crosstune.languages import SPACELESS_SCRIPTS, check_language, script_of

Row = dict[str, Any]


def check_kind(kind: TaskType) -> None:
    """Raise ConfigError if a task type predicts nothing about a text."""
    if kind is TaskType.masked_lm:
        raise ConfigError(
            f"kind {kind.name}: it predicts nothing about a text. To train on its encoder: "
            "model=local model.path=RUN."
        )


def complete_rows(rows: Sequence[Row], kind: TaskType, task: Any, language: str) -> list[Row]:
    """Return rows of `id`, `where` and inputs with all that the task encodes.

    Raises:
        ConfigError: the task type predicts nothing, or the language is unknown.
        DataError: rows do not fit the task; it holds all faults.
    """
    check_kind(kind)
    check_language(language)
    completed: list[Row] = []
    faults: list[str] = []
    for row in rows:
        try:
            added = _find_missing_fields(row, kind, task, language)
        except ValueError as error:
            faults.append(f"{row['where']}: {error}")
            continue
        completed.append({**row, **added, "language": language})
        faults += [f"{row['where']}: {fault}" for fault in task.find_row_faults(completed[-1])]
    if faults:
        raise DataError(faults)
    return completed


def _find_missing_fields(row: Row, kind: TaskType, task: Any, language: str) -> Row:
    match kind:
        case TaskType.tagging:
            return _split_words(row, task, language)
        case TaskType.extraction:
            return {"answers": []}
        case TaskType.generation:
            return {"target": "-"}
        case TaskType.regression:
            return {"label": "0"}
    label = {"label": getattr(task, "classes", task.labels)[0]}
    return {**label, **unmark(row["text"])._asdict()} if kind is TaskType.relation else label


def _split_words(row: Row, task: Any, language: str) -> Row:
    """Return the words, their text, the start of each in it, and a placeholder tag for each.

    A text without words is split at spaces, or into characters where the language has no spaces
    between words or the task is to find the words.
    """
    spaced = has_spaces(language)
    if "words" in row:
        words, text = row["words"], (" " if spaced else "").join(row["words"])
        starts = locate_words(words, spaced)
    else:
        text = row["text"]
        matches = list(re.finditer(r"\S+" if spaced and task.scheme != "words" else r"\S", text))
        words, starts = [m.group() for m in matches], [m.start() for m in matches]
    return {"text": text, "words": words, "starts": starts, "tags": task.labels[:1] * len(words)}


def has_spaces(language: str) -> bool:
    """Return whether a language is written with spaces between its words.

    >>> has_spaces("es"), has_spaces("zh"), has_spaces("zh-Hant-TW"), has_spaces("es-x-medical")
    (True, False, False, True)
    """
    return script_of(language) not in SPACELESS_SCRIPTS


def locate_words(words: Sequence[str], spaced: bool) -> list[int]:
    """Return the start of each word in the text of all words, joined with or without spaces.

    >>> locate_words(["el", "niño"], True), locate_words(["小", "明"], False)
    ([0, 3], [0, 1])
    """
    starts, end = [], 0
    for word in words:
        starts.append(end)
        end += len(word) + spaced
    return starts
