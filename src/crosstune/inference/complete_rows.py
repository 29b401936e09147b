"""What is asked about one item, made a whole row of the run's kind.

A reader or a request gives a text, a pair, words or a question; here each row gets what its kind
encodes beside them. Labels are never known: a stand-in takes their place that the task accepts and
that no prediction depends on. Called by `inputs.py` and `serve.py`.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from crosstune.config.schema import TaskType
from crosstune.data.readers.relations import unmark
from crosstune.errors import ConfigError, DataError
from crosstune.languages import SPACELESS_SCRIPTS, check_language, script_of

Row = dict[str, Any]


def check_kind(kind: TaskType) -> None:
    """Raise ConfigError if a kind answers nothing about a text."""
    if kind not in ADDED:
        raise ConfigError(
            f"kind {kind.name}: it answers nothing about a text. Its encoder is what others train "
            "on: model=local model.path=RUN."
        )


def complete_rows(rows: Sequence[Row], kind: TaskType, task: Any, language: str) -> list[Row]:
    """Return rows of `id`, `where` and what is asked about, with all that the kind encodes.

    Raises:
        ConfigError: the kind predicts nothing, or there is no such language.
        DataError: a row does not fit the kind; all faults are told.
    """
    check_kind(kind)
    check_language(language)
    whole: list[Row] = []
    faults: list[str] = []
    for row in rows:
        try:
            added = ADDED[kind](row, task, language)
        except ValueError as error:
            faults.append(f"{row['where']}: {error}")
            continue
        whole.append({**row, **added, "language": language})
        faults += [f"{row['where']}: {fault}" for fault in task.find_row_faults(whole[-1])]
    if faults:
        raise DataError(faults)
    return whole


def is_spaced(language: str) -> bool:
    """Say whether a language is written with spaces between its words.

    >>> is_spaced("es"), is_spaced("zh"), is_spaced("zh-Hant-TW"), is_spaced("es-x-medical")
    (True, False, False, True)
    """
    return script_of(language) not in SPACELESS_SCRIPTS


def locate_words(words: Sequence[str], spaced: bool) -> list[int]:
    """Return where each word starts in the text of all, with or without a space between them.

    >>> locate_words(["el", "niño"], True), place(["小", "明"], False)
    ([0, 3], [0, 1])
    """
    starts, end = [], 0
    for word in words:
        starts.append(end)
        end += len(word) + spaced
    return starts


def _label(row: Row, task: Any, language: str) -> Row:
    return {"label": getattr(task, "classes", task.labels)[0]}


def _number(row: Row, task: Any, language: str) -> Row:
    return {"label": "0"}


def _target(row: Row, task: Any, language: str) -> Row:
    return {"target": "-"}


def _entities(row: Row, task: Any, language: str) -> Row:
    return {**_label(row, task, language), **unmark(row["text"])._asdict()}


def _tags(row: Row, task: Any, language: str) -> Row:
    """Return words, their text, where in it each starts, and a tag for each.

    A text alone is parted at its spaces, and at each character where a language has none between
    words, or where words are what is looked for.
    """
    spaced = is_spaced(language)
    if "words" in row:
        text, words = (" " if spaced else "").join(row["words"]), row["words"]
        starts = locate_words(words, spaced)
    else:
        pattern = r"\S+" if spaced and task.scheme != "words" else r"\S"
        text, found = row["text"], list(re.finditer(pattern, row["text"]))
        words, starts = [m.group() for m in found], [m.start() for m in found]
    tags = task.labels[:1] * len(words)
    return {"text": text, "words": words, "starts": starts, "tags": tags}


def _answers(row: Row, task: Any, language: str) -> Row:
    return {"answers": []}


ADDED: dict[TaskType, Callable[[Row, Any, str], Row]] = {
    TaskType.classification: _label,
    TaskType.cloze: _label,
    TaskType.entailment: _label,
    TaskType.regression: _number,
    TaskType.relation: _entities,
    TaskType.generation: _target,
    TaskType.tagging: _tags,
    TaskType.extraction: _answers,
}
