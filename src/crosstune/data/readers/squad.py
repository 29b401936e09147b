"""SQuAD's JSON: articles, paragraphs and questions, one row a question.

The file is one object, or JSON lines with a question each, as the datasets library writes them.
SQuAD 1.1 and 2.0, and data sets in their format: XQuAD, MLQA, DRCD, CMRC 2018 in SQuAD style.
Whether an answer is at its offset is checked by the task.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from crosstune.data.readers.files import has_lone_surrogate, make_split, parse_json, read_file
from crosstune.data.readers.tables import parse_json_lines
from crosstune.data.splits import Split

TYPE_NAMES = {
    str: "a string",
    list: "a list",
    dict: "an object",
    int: "an integer",
    bool: "a boolean",
    type(None): "null",
}
# An id with its value, or any other string. Strings are skipped whole, so that an "id" inside a
# text is not taken for a key.
ID_OR_STRING = re.compile(
    r'"id"\s*:\s*(?P<id>"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+)|"[^"\\]*(?:\\.[^"\\]*)*"'
)


def read_squad(source: str, *, answered: bool = True, encoding: str = "utf-8") -> Split:
    """Read SQuAD 1.1 or 2.0 JSON (gzip allowed), one row a question.

    In JSON lines each object is a question with its `context`; `answers` is a list as in SQuAD, or
    holds the lists `text` and `answer_start`.

    Rows carry `question`, `context` and `answers`, a list of {"text", "start"}, where start counts
    characters of the context from 0. The list is empty if the context does not answer the
    question (`is_impossible: true`), and for every row if `answered` is false. `where` is the line
    of the question's id, with its column if the whole file is one line.

    Raises:
        DataError: the file is missing, in another encoding or no JSON; a key is missing or holds
            a value of the wrong type; an id is repeated; a question that is said to have an answer
            has none.
    """
    content, digest = read_file(source, encoding)
    faults: list[str] = []
    locator = _IdLocator(source, content)
    rows: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    if is_json_lines(content):
        questions = _iterate_lines(content, source, faults)
    else:
        questions = _iterate_questions(parse_json(source, content), source, faults)
    for path, context, value in questions:
        node = _Node(value, path, source, faults)
        name = node.take_id()
        where = locator.locate(name) if name is not None else source
        node.where = where
        question = node.take("question", str)
        answers = _take_answers(node) if answered else []
        if name in first:
            faults.append(f"{where}: {path}: the id {name!r} stands at {first[name]} already")
        elif name is not None:
            first[name] = where
        columns = {"question": question, "context": context, "answers": answers}
        rows.append({"id": name, **columns, "where": where})
    return make_split(rows, faults, {source: digest})


class _Node:
    """An object of the file with its path; adds what is missing or wrong in it to `faults`."""

    def __init__(self, value: Any, path: str, where: str, faults: list[str]):
        self.path, self.where, self.faults = path, where, faults
        self.value: dict[str, Any] | None = value if isinstance(value, dict) else None
        if self.value is None:
            self.add_fault(f"{_describe_type(value)}, where an object must stand")

    def add_fault(self, fault: str) -> None:
        self.faults.append(f"{self.where}: {self.path}: {fault}")

    def take(self, key: str, expected: type) -> Any:
        """Return the value of a key; None, and a fault, if it is missing or of another type."""
        if self.value is None:
            return None
        if key not in self.value:
            self.add_fault(f"no {key!r}. The keys are: {', '.join(self.value) or 'none'}")
            return None
        value = self.value[key]
        if type(value) is not expected:  # isinstance takes a boolean for an int
            self.add_fault(f"{key!r} holds {_describe_type(value)}, not {TYPE_NAMES[expected]}")
            return None
        if expected is str and has_lone_surrogate(value):
            self.add_fault(f"{key!r} holds half of a character (a lone surrogate)")
            return None
        return value

    def take_id(self) -> str | None:
        """Return the id as text; it may be an integer."""
        value = (self.value or {}).get("id")
        return str(value) if type(value) is int else self.take("id", str)

    def iterate(self, key: str) -> Iterator["_Node"]:
        """Yield the objects of a list."""
        for number, value in enumerate(self.take(key, list) or ()):
            yield _Node(value, f"{self.path}.{key}[{number}]", self.where, self.faults)


def _describe_type(value: Any) -> str:
    return TYPE_NAMES.get(type(value), f"the number {value}")


def _iterate_questions(
    loaded: Any, source: str, faults: list[str]
) -> Iterator[tuple[str, str | None, Any]]:
    """Yield the path, context and content of every question."""
    for article in _Node(loaded, "$", source, faults).iterate("data"):
        for paragraph in article.iterate("paragraphs"):
            context = paragraph.take("context", str)
            for number, value in enumerate(paragraph.take("qas", list) or ()):
                yield f"{paragraph.path}.qas[{number}]", context, value


def is_json_lines(content: str) -> bool:
    """Return whether a text has one JSON object a line, and more than one line."""
    first, _, rest = content.strip().partition("\n")
    if not (first.startswith("{") and rest.lstrip().startswith("{")):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _iterate_lines(
    content: str, source: str, faults: list[str]
) -> Iterator[tuple[str, str | None, Any]]:
    """Yield the path, context and content of the question of each line."""
    for number, record in parse_json_lines(content):
        where = f"{source}:{number}"
        if isinstance(record, str):
            faults.append(f"{where}: {record}")
            continue
        context = _Node(record, "$", where, faults).take("context", str)
        yield "$", context, {**record, "answers": _zip_answers(record.get("answers"))}


def _zip_answers(answers: Any) -> Any:
    """Return answers as SQuAD's list where they are lists of texts and of starts."""
    texts = answers.get("text") if isinstance(answers, dict) else None
    starts = answers.get("answer_start") if isinstance(answers, dict) else None
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return answers
    return [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]


def _take_answers(question: _Node) -> list[dict[str, Any]]:
    value = question.value or {}
    impossible = "is_impossible" in value and question.take("is_impossible", bool)
    if impossible or not value:
        return []
    answers = [
        {"text": answer.take("text", str), "start": answer.take("answer_start", int)}
        for answer in question.iterate("answers")
    ]
    if value.get("is_impossible") is False and value.get("answers") == []:
        question.add_fault("no answer, though 'is_impossible' is false")
    return answers


class _IdLocator:
    """Finds the lines of ids in the raw text; the ids must come in the order of the file."""

    def __init__(self, source: str, content: str):
        self.source = source
        self.ends = [match.start() for match in re.finditer("\n", content)]
        self.one_line = "\n" not in content.strip()
        self.ids = ((m["id"], m.start("id")) for m in ID_OR_STRING.finditer(content) if m["id"])

    def locate(self, name: str) -> str:
        """Return file:line of the next object with that id, or the file if there is none."""
        for raw, offset in self.ids:
            if str(json.loads(raw)) == name:
                line = bisect_right(self.ends, offset)
                column = offset - (self.ends[line - 1] if line else -1)
                return f"{self.source}:{line + 1}" + (f":{column}" if self.one_line else "")
        return self.source
