"""Generated rows in place of a data set, so that a study can be rehearsed without its files.

They have the task type, languages and columns of the data set, text from the demo's grammars, and
labels without meaning. `read_data` alone decides whether a run reads real or generated rows.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from crosstune.config.schema import Data, Run, TaskType
from crosstune.data.splits import Split, Splits, iterate_sources, read_splits
from crosstune.data.synthetic.demo import LANGUAGES, read_demo_entities, read_demo_sentiment

ROWS = {"train": 24, "validation": 12, "test": 12}
_REGRESSION_LABELS = 6  # distinct numbers


def read_data(run: Run) -> Splits:
    """Return the splits of a run's data set, or generated ones if `trainer.stand_in` is set.

    Raises:
        ConfigError: a split is not a source or {language: source}, or lacks the language of train.
        DataError: a file is malformed or a split is empty.
    """
    return generate_splits(run.data) if run.trainer.stand_in else read_splits(run.data, run.allow)


def generate_splits(data: Data) -> Splits:
    """Return generated splits for a data set, the same on every machine; no file is read.

    Raises:
        ConfigError: a split is not a source or {language: source}, or lacks the language of train.
    """
    splits: Splits = {}
    for name, language, _ in iterate_sources(data):
        source = f"stand-in/{data.name}/{language}/{name}"
        rows = [
            {"id": str(number), **columns, "language": language, "where": f"{source}:{number}"}
            for number, columns in enumerate(_generate_columns(name, language, data), start=1)
        ]
        digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
        splits.setdefault(name, {})[language] = Split(rows, {source: digest})
    return splits


def _generate_columns(name: str, language: str, data: Data) -> list[dict[str, Any]]:
    if language not in LANGUAGES:
        language = "en"
    rows = {name: ROWS[name]}
    opinions = read_demo_sentiment(name, language=language, rows=rows).rows
    mentions = read_demo_entities(name, language=language, rows=rows).rows
    separator = "" if language == "zh" else " "
    make_columns = _MAKE_COLUMNS[data.kind]
    return [
        make_columns(number, {**opinion, **mention, "separator": separator}, data)
        for number, (opinion, mention) in enumerate(zip(opinions, mentions, strict=True))
    ]


def _make_classification(number: int, demo: dict[str, Any], data: Data) -> dict[str, Any]:
    labels = _list_labels(data)
    columns = {"text": demo["text"], "label": labels[number % len(labels)]}
    options = (data.reader, data.reader.get("columns") or {})
    if any(option.get("text_pair") for option in options):
        columns["text_pair"] = demo["separator"].join(demo["words"])
    return columns


def _list_labels(data: Data) -> list[str]:
    """Return the labels that the options of the data set name, or two arbitrary ones."""
    named = data.task.get("verbalizers") or data.task.get("names")
    if named:
        return sorted(next(iter(named.values())))
    separator = data.task.get("separator")
    return ["first", "second"] if separator is None else ["first", f"first{separator}second"]


def _make_regression(number: int, demo: dict[str, Any], data: Data) -> dict[str, Any]:
    label = str(number % _REGRESSION_LABELS)
    return {**_make_classification(number, demo, data), "label": label}


def _make_relation(number: int, demo: dict[str, Any], data: Data) -> dict[str, Any]:
    words = demo["words"]
    text = demo["separator"].join(words)
    labels = ["related(e1,e2)", "related(e2,e1)", data.task.get("no_relation") or "unrelated"]
    head, tail = [0, len(words[0])], [len(text) - len(words[-1]), len(text)]
    return {"text": text, "head": head, "tail": tail, "label": labels[number % len(labels)]}


def _make_tagging(number: int, demo: dict[str, Any], data: Data) -> dict[str, Any]:
    words, tags = demo["words"], demo["tags"]
    if data.task.get("scheme") == "words":  # segmentation: words of two characters
        pairs = len(words) // 2
        tags = ["B", "E"] * pairs + ["S"] * (len(words) - 2 * pairs)
    return {"words": words, "tags": tags}


def _make_extraction(number: int, demo: dict[str, Any], data: Data) -> dict[str, Any]:
    words, separator = demo["words"], demo["separator"]
    middle = len(words) // 2
    start = len(separator.join([*words[:middle], ""]))
    answers = [{"text": words[middle], "start": start}]
    return {"question": demo["text"], "context": separator.join(words), "answers": answers}


def _make_generation(number: int, demo: dict[str, Any], data: Data) -> dict[str, Any]:
    return {"text": demo["text"], "target": demo["separator"].join(demo["words"])}


def _make_masked_lm(number: int, demo: dict[str, Any], data: Data) -> dict[str, Any]:
    return {"text": demo["text"]}


_MAKE_COLUMNS: dict[TaskType, Callable[[int, dict[str, Any], Data], dict[str, Any]]] = {
    TaskType.classification: _make_classification,
    TaskType.cloze: _make_classification,
    TaskType.entailment: _make_classification,
    TaskType.regression: _make_regression,
    TaskType.relation: _make_relation,
    TaskType.tagging: _make_tagging,
    TaskType.extraction: _make_extraction,
    TaskType.generation: _make_generation,
    TaskType.masked_lm: _make_masked_lm,
}
