"""SQuAD's JSON: articles, paragraphs and questions, one row a question.

SQuAD 1.1 and 2.0, and what is written like them: XQuAD, MLQA, DRCD, CMRC 2018 in SQuAD style.
Whether an answer stands where the file says is for `tasks/extraction.py` to check.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from crosstune.data.readers.files import read_file
from crosstune.data.splits import Split
from crosstune.errors import DataError

NAMES = {str: "a string", list: "a list", dict: "an object", int: "an integer", bool: "a boolean"}
# an id with its value, or any other string: strings are passed over whole, so that an "id" that
# stands inside a text is not taken for a key
ID_OR_STRING = re.compile(
    r'"id"\s*:\s*(?P<id>"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+)|"[^"\\]*(?:\\.[^"\\]*)*"'
)


def read_squad(source: str, *, answered: bool = True, encoding: str = "utf-8") -> Split:
    """Read SQuAD 1.1 or 2.0 JSON (gzip allowed), one row a question.

    Rows carry `question`, `context` and `answers`, a list of {"text", "start"}, where start counts
    characters of the context from 0; no answers mean that the context does not answer the
    question, as `is_impossible: true` says. With `answered` false no answer is looked at, and each
    row has none. `where` is the line of the question's id, with its column where the whole file is
    one line.

    Raises:
        DataError: the file is missing, in another encoding or no JSON; a key is missing or holds
            another type than it must; an id stands twice; a question is said to have an answer
            and has none.
    """
    content, digest = read_file(source, encoding)
    faults: list[str] = []
    lines = _Lines(source, content)
    rows: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    for path, context, found in _questions(_parse(source, content), source, faults):
        node = _Node(found, path, source, faults)
        name = node.name()
        where = lines.find(name) if name is not None else source
        node.place = where
        question = node.take("question", str)
        answers = _answers(node) if answered else []
        if name in first:
            faults.append(f"{where}: {path}: the id {name!r} stands at {first[name]} already")
        elif name is not None:
            first[name] = where
        rows.append(
            {
                "id": name,
                "question": question,
                "context": context,
                "answers": answers,
                "where": where,
            }
        )
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def _parse(source: str, content: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        place = f"{source}:{error.lineno}:{error.colno}"
        raise DataError([f"{place}: malformed JSON ({error.msg})"]) from error
    except (ValueError, RecursionError) as error:  # an endless number, or nesting without end
        raise DataError([f"{source}: malformed JSON ({error})"]) from error


class _Node:
    """One value of the file with its path; what it lacks goes to the list of faults."""

    def __init__(self, value: Any, path: str, place: str, faults: list[str]):
        self.path, self.place, self.faults = path, place, faults
        self.value: dict[str, Any] | None = value if isinstance(value, dict) else None
        if self.value is None:
            self.blame(f"{_kind(value)}, where an object must stand")

    def blame(self, fault: str) -> None:
        """Add a fault."""
        self.faults.append(f"{self.place}: {self.path}: {fault}")

    def take(self, key: str, kind: type) -> Any:
        """Return the value of a key, or None, which is then a fault."""
        if self.value is None:
            return None
        if key not in self.value:
            self.blame(f"no {key!r}. The keys are: {', '.join(self.value) or 'none'}")
            return None
        found = self.value[key]
        if type(found) is not kind:  # a boolean is an int to isinstance
            self.blame(f"{key!r} holds {_kind(found)}, not {NAMES[kind]}")
            return None
        if kind is str and re.search("[\ud800-\udfff]", found):
            self.blame(f"{key!r} holds half of a character (a lone surrogate)")
            return None
        return found

    def name(self) -> str | None:
        """Return the id as text."""
        found = (self.value or {}).get("id")
        return str(found) if type(found) is int else self.take("id", str)

    def each(self, key: str) -> Iterator["_Node"]:
        """Yield the objects of a list."""
        for number, value in enumerate(self.take(key, list) or ()):
            yield _Node(value, f"{self.path}.{key}[{number}]", self.place, self.faults)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return NAMES.get(type(value), f"the number {value}")


def _questions(
    loaded: Any, source: str, faults: list[str]
) -> Iterator[tuple[str, str | None, Any]]:
    """Yield the path, context and content of every question."""
    for article in _Node(loaded, "$", source, faults).each("data"):
        for paragraph in article.each("paragraphs"):
            context = paragraph.take("context", str)
            for number, found in enumerate(paragraph.take("qas", list) or ()):
                yield f"{paragraph.path}.qas[{number}]", context, found


def _answers(question: _Node) -> list[dict[str, Any]]:
    found = question.value or {}
    impossible = "is_impossible" in found and question.take("is_impossible", bool)
    if impossible or not found:
        return []
    answers = [
        {"text": answer.take("text", str), "start": answer.take("answer_start", int)}
        for answer in question.each("answers")
    ]
    if found.get("is_impossible") is False and found.get("answers") == []:
        question.blame("no answer, though 'is_impossible' is false")
    return answers


class _Lines:
    """Finds the lines of ids in the raw text, asked for in the order of the file."""

    def __init__(self, source: str, content: str):
        self.source = source
        self.ends = [match.start() for match in re.finditer("\n", content)]
        self.one_line = "\n" not in content.strip()
        self.found = ((m["id"], m.start("id")) for m in ID_OR_STRING.finditer(content) if m["id"])

    def find(self, name: str) -> str:
        """Return file:line of the next object with that id; it must be in the file."""
        for raw, position in self.found:
            if str(json.loads(raw)) == name:
                line = bisect_right(self.ends, position)
                column = position - (self.ends[line - 1] if line else -1)
                return f"{self.source}:{line + 1}" + (f":{column}" if self.one_line else "")
        return self.source
