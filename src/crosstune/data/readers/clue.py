"""The files of CLUE's classification tasks: JSON, one object a line, by the names of the task.

A list of keywords becomes one text; the two spans of CLUEWSC are marked in their text. TACRED's
file, one JSON list of sentences, is `tacred.py`'s.
"""

import json
from typing import Any

from crosstune.data.readers.files import lines_of, read_file
from crosstune.data.splits import Split
from crosstune.errors import DataError


def read_clue(
    source: str,
    *,
    text: str,
    label: str,
    text_pair: str | None = None,
    spans: str | None = None,
    undecided: str | None = None,
) -> Split:
    """Read one labelled text, or pair of texts, a line.

    `spans` is the key of CLUEWSC's noun and pronoun: the text has them as [noun] and _pronoun_.
    Rows labelled `undecided`, on which the annotators did not agree, are left out.

    Raises:
        DataError: the file is missing or not UTF-8, a line is no JSON object, lacks a key or has an
            empty value, or a span does not stand where it says.
    """
    content, digest = read_file(source, "utf-8")
    columns = {"text": text, "text_pair": text_pair, "label": label}
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, line in lines_of(content):
        where = f"{source}:{number}"
        try:
            found = json.loads(line) if line.strip() else None
            if found is not None and found[label] != undecided:
                values = {ours: _text_of(found[key]) for ours, key in columns.items() if key}
                if spans:
                    values["text"] = insert_span_markers(values["text"], found[spans])
                rows.append({"id": str(number - 1), **values, "where": where})
        except json.JSONDecodeError as error:
            faults.append(f"{where}: malformed JSON at column {error.colno} ({error.msg})")
        except KeyError as error:
            faults.append(f"{where}: no key {error}")
        except (TypeError, ValueError) as error:
            faults.append(f"{where}: {error}")
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def insert_span_markers(text: str, spans: dict[str, Any]) -> str:
    """Return a text with [span1] and _span2_ marked at their places.

    Raises:
        ValueError: a span does not stand where it says.

    >>> span = {"span1_text": "Ana", "span1_index": 0, "span2_text": "ella", "span2_index": 13}
    >>> insert_span_markers("Ana dijo que ella", span)
    '[Ana] dijo que _ella_'
    """
    marks = []
    for name, before, after in (("span1", "[", "]"), ("span2", "_", "_")):
        form, start = spans[f"{name}_text"], spans[f"{name}_index"]
        if not form or text[start : start + len(form)] != form:
            raise ValueError(f"{name} {form!r} does not stand at {start}")
        marks += [(start, 1, before), (start + len(form), 0, after)]
    for place, _, mark in sorted(marks, reverse=True):
        text = text[:place] + mark + text[place:]
    return text


def _text_of(value: Any) -> str:
    text = " ".join(value) if isinstance(value, list) else str(value)
    if not text.strip():
        raise ValueError("a value is empty")
    text.encode()  # half of a character is a UnicodeEncodeError, which is a ValueError
    return text
