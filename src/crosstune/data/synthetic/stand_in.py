"""Generated rows that stand in for a data set, so that a study can be rehearsed without its files.

They have the kind, the languages and the columns of the data set, a few sentences of the demo's
grammars, and labels that mean nothing. `read_data` is where `prepare.py` and `sweep.py` get the
splits of a run from; nothing else decides between the real and the generated.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from crosstune.config.schema import Data, Run, TaskType
from crosstune.data.split import Split
from crosstune.data.splits import Splits, parts_of, read_splits
from crosstune.data.synthetic.demo import read_demo_entities, read_demo_sentiment

ROWS = {"train": 24, "validation": 12, "test": 12}
_SPOKEN = ("es", "zh", "en")  # other languages are rehearsed in English
_DEGREES = 6  # numbers that a regression has


def read_data(run: Run) -> Splits:
    """Return the splits of a run's data set, or what stands in for them in a rehearsal.

    Raises:
        ConfigError: a split is no source or {language: source}, or lacks the language of train.
        DataError: a file is malformed or a split is empty.
    """
    return generate_splits(run.data) if run.trainer.stand_in else read_splits(run.data, run.allow)


def generate_splits(data: Data) -> Splits:
    """Return generated splits for a data set, the same on every machine; no file is read.

    Raises:
        ConfigError: a split is no source or {language: source}, or lacks the language of train.
    """
    splits: Splits = {}
    for name, language, _ in parts_of(data):
        place = f"stand-in/{data.name}/{language}/{name}"
        rows = [
            {"id": str(number), **columns, "language": language, "where": f"{place}:{number}"}
            for number, columns in enumerate(_draw(name, language, data), start=1)
        ]
        digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
        splits.setdefault(name, {})[language] = Split(rows, {place: digest})
    return splits


def _draw(name: str, language: str, data: Data) -> list[dict[str, Any]]:
    spoken = language if language in _SPOKEN else "en"
    rows = {name: ROWS[name]}
    opinions = read_demo_sentiment(name, language=spoken, rows=rows).rows
    mentions = read_demo_entities(name, language=spoken, rows=rows).rows
    between = "" if spoken == "zh" else " "
    columns_of = _COLUMNS[data.kind]
    return [
        columns_of(number, {**opinion, **mention, "between": between}, data)
        for number, (opinion, mention) in enumerate(zip(opinions, mentions, strict=True))
    ]


def _labelled(number: int, drawn: dict[str, Any], data: Data) -> dict[str, Any]:
    labels = _labels(data)
    pair = {"text_pair": drawn["between"].join(drawn["words"])} if _is_pair(data) else {}
    return {"text": drawn["text"], **pair, "label": labels[number % len(labels)]}


def _is_pair(data: Data) -> bool:
    columns = data.reader.get("columns") or {}
    return any(given.get("text_pair") for given in (data.reader, columns))


def _labels(data: Data) -> list[str]:
    """Return the labels that the data set's options name, or two of no meaning."""
    named = data.task.get("verbalizers") or data.task.get("names")
    if named:
        return sorted(next(iter(named.values())))
    separator = data.task.get("separator")
    return ["first", "second"] if separator is None else ["first", f"first{separator}second"]


def _related(number: int, drawn: dict[str, Any], data: Data) -> dict[str, Any]:
    words, between = drawn["words"], drawn["between"]
    text = between.join(words)
    labels = ["related(e1,e2)", "related(e2,e1)", data.task.get("no_relation") or "unrelated"]
    head, tail = [0, len(words[0])], [len(text) - len(words[-1]), len(text)]
    return {"text": text, "head": head, "tail": tail, "label": labels[number % len(labels)]}


def _tagged(number: int, drawn: dict[str, Any], data: Data) -> dict[str, Any]:
    words, tags = drawn["words"], drawn["tags"]
    if data.task.get("scheme") == "words":  # characters, joined by twos
        pairs = len(words) // 2
        tags = ["B", "E"] * pairs + ["S"] * (len(words) - 2 * pairs)
    return {"words": words, "tags": tags}


def _asked(number: int, drawn: dict[str, Any], data: Data) -> dict[str, Any]:
    words, between = drawn["words"], drawn["between"]
    middle = len(words) // 2
    start = len(between.join([*words[:middle], ""]))
    answers = [{"text": words[middle], "start": start}]
    return {"question": drawn["text"], "context": between.join(words), "answers": answers}


def _graded(number: int, drawn: dict[str, Any], data: Data) -> dict[str, Any]:
    return {**_labelled(number, drawn, data), "label": str(number % _DEGREES)}


def _written(number: int, drawn: dict[str, Any], data: Data) -> dict[str, Any]:
    return {"text": drawn["text"], "target": drawn["between"].join(drawn["words"])}


def _plain(number: int, drawn: dict[str, Any], data: Data) -> dict[str, Any]:
    return {"text": drawn["text"]}


_COLUMNS: dict[TaskType, Callable[[int, dict[str, Any], Data], dict[str, Any]]] = {
    TaskType.classification: _labelled,
    TaskType.cloze: _labelled,
    TaskType.entailment: _labelled,
    TaskType.regression: _graded,
    TaskType.relation: _related,
    TaskType.tagging: _tagged,
    TaskType.extraction: _asked,
    TaskType.generation: _written,
    TaskType.masked_lm: _plain,
}
