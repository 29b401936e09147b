"""TACRED's JSON: one list of sentences in words, each with a subject, an object and their relation.

Rows carry `text`, the words parted by blanks, `head` (the subject) and `tail` (the object) as
[start, end) character offsets, and `label`.
"""

import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from crosstune.data.readers.files import read_file
from crosstune.data.splits import Split
from crosstune.errors import DataError


def read_tacred(source: str, *, encoding: str = "utf-8") -> Split:
    """Read TACRED, or what is written like it, one row a sentence.

    Raises:
        DataError: the file is missing, no JSON list, or a sentence lacks a key or a span of words.
    """
    content, digest = read_file(source, encoding)
    try:
        loaded = json.loads(content)
    except json.JSONDecodeError as error:
        place = f"{source}:{error.lineno}:{error.colno}"
        raise DataError([f"{place}: malformed JSON ({error.msg})"]) from error
    if not isinstance(loaded, list):
        raise DataError([f"{source}: no JSON list of sentences"])
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, found in enumerate(loaded, start=1):
        where = f"{source}:{number}"  # a file is one line: the number of the sentence
        try:
            rows.append({**_read_sentence(found), "where": where})
        except KeyError as error:
            faults.append(f"{where}: no key {error}")
        except (TypeError, ValueError) as error:
            faults.append(f"{where}: {error}")
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def _read_sentence(found: dict[str, Any]) -> dict[str, Any]:
    words = found["token"]
    head, tail = (
        characters_of(words, found[f"{name}_start"], found[f"{name}_end"])
        for name in ("subj", "obj")
    )
    row = {"id": found["id"], "label": found["relation"]}
    if not all(isinstance(value, str) and value for value in row.values()):
        raise ValueError("its id or relation is no text")
    return {**row, "text": " ".join(words), "head": head, "tail": tail}


def characters_of(words: Sequence[str], first: int, last: int) -> list[int]:
    """Return [start, end) of a span of words in the text that blanks part them in.

    Raises:
        ValueError: there are no such words.

    >>> characters_of(["Ana", "vive", "en", "Lima"], 1, 2)
    [4, 11]
    """
    if not 0 <= first <= last < len(words):
        raise ValueError(f"no words {first} to {last}: the sentence has {len(words)}")
    starts = [0, *accumulate(len(word) + 1 for word in words)]
    return [starts[first], starts[last + 1] - 1]
