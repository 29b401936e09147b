"""Reader for the classification tasks of the CLUE benchmark.

The files are JSON lines; their field names differ by task and are options of the reader. The two
spans of CLUEWSC are marked in the text.
"""

from typing import Any

from crosstune.data.readers.files import collect_faults, has_lone_surrogate, make_split, read_file
from crosstune.data.readers.tables import parse_json_lines
from crosstune.data.splits import Split


def read_clue(
    source: str,
    *,
    text: str,
    label: str,
    text_pair: str | None = None,
    spans: str | None = None,
    undecided: str | None = None,
) -> Split:
    """Read one labelled text, or pair of texts, a line; a list of keywords becomes one text.

    `spans` is the key of CLUEWSC's noun and pronoun: the text has them as [noun] and _pronoun_.
    Rows labelled `undecided`, on which the annotators did not agree, are left out.

    Raises:
        DataError: the file is missing or not UTF-8, a line is no JSON object, lacks a key or has an
            empty value, or a span is not at its index.
    """
    content, digest = read_file(source, "utf-8")
    columns = {"text": text, "text_pair": text_pair, "label": label}
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, record in parse_json_lines(content):
        where = f"{source}:{number}"
        if isinstance(record, str):
            faults.append(f"{where}: {record}")
            continue
        with collect_faults(faults, where):
            if undecided is not None and record[label] == undecided:
                continue
            values = {ours: _read_value(record[key]) for ours, key in columns.items() if key}
            if spans:
                values["text"] = insert_span_markers(values["text"], record[spans])
            rows.append({"id": str(number - 1), **values, "where": where})
    return make_split(rows, faults, {source: digest})


def insert_span_markers(text: str, spans: dict[str, Any]) -> str:
    """Return a text with the two spans marked as [span1] and _span2_.

    Raises:
        ValueError: a span is not at its index.

    >>> span = {"span1_text": "Ana", "span1_index": 0, "span2_text": "ella", "span2_index": 13}
    >>> insert_span_markers("Ana dijo que ella", span)
    '[Ana] dijo que _ella_'
    """
    markers = []
    for name, opening, closing in (("span1", "[", "]"), ("span2", "_", "_")):
        form, start = spans[f"{name}_text"], spans[f"{name}_index"]
        if not form or text[start : start + len(form)] != form:
            raise ValueError(f"{name} {form!r} does not stand at {start}")
        markers += [(start, 1, opening), (start + len(form), 0, closing)]
    for index, _, marker in sorted(markers, reverse=True):
        text = text[:index] + marker + text[index:]
    return text


def _read_value(value: Any) -> str:
    text = " ".join(value) if isinstance(value, list) else "" if value is None else str(value)
    if not text.strip():
        raise ValueError("a value is empty")
    if has_lone_surrogate(text):
        raise ValueError("a value holds half of a character (a lone surrogate)")
    return text
