"""Texts with two entities and their relation: marked, by word index, or by surface form.

Rows carry `text` without markers, `head` (e1, the subject) and `tail` (e2, the object) as
[start, end) character offsets, and `label`. BRAT's stand-off annotations have their own file.
"""

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Unpack

from crosstune.data.readers.files import (
    collect_faults,
    iterate_blocks,
    iterate_lines,
    make_split,
    parse_json,
    read_file,
)
from crosstune.data.readers.tables import TableLayout, read_columns
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError

MARKER = re.compile(r"</?e[12]>")
MARKERS = ("<e1>", "</e1>", "<e2>", "</e2>")
NUMBERED = re.compile(r'([0-9]+)\t"(.*)"')


class Marked(NamedTuple):
    """A text without its markers, and the offsets of the entities in it."""

    text: str
    head: list[int]
    tail: list[int]


def unmark(text: str) -> Marked:
    """Return a text without its markers, and the offsets of the entities.

    Raises:
        ValueError: one of the four markers is missing or repeated, or an entity is empty.

    >>> unmark("<e1>Ana</e1> vive en <e2>Lima</e2>.")
    Marked(text='Ana vive en Lima.', head=[0, 3], tail=[12, 16])
    """
    markers = MARKER.findall(text)
    if sorted(markers) != sorted(MARKERS):
        received = " ".join(markers) or "none"
        raise ValueError(f"its marks are {received}; each of {' '.join(MARKERS)} must stand once")
    offsets: dict[str, int] = {}
    removed = 0
    for match in MARKER.finditer(text):
        offsets[match.group()] = match.start() - removed
        removed += len(match.group())
    head, tail = [offsets["<e1>"], offsets["</e1>"]], [offsets["<e2>"], offsets["</e2>"]]
    if head[0] >= head[1] or tail[0] >= tail[1]:
        raise ValueError("an entity is empty, or its marks stand the wrong way round")
    return Marked(MARKER.sub("", text), head, tail)


def read_marked(
    source: str,
    *,
    text: str,
    label: str,
    **layout: Unpack[TableLayout],
) -> Split:
    """Read a TSV, CSV, JSONL or Parquet table with <e1>, </e1>, <e2> and </e2> in its texts.

    Raises:
        DataError: as `read_table`; or a text lacks a marker, or has an empty entity.
        ConfigError: as `read_table`.
    """
    split = read_columns(source, {"text": text, "label": label}, **layout)
    faults: list[str] = []
    for row in split.rows:
        with collect_faults(faults, row["where"]):
            row.update(unmark(row["text"])._asdict())
    return make_split(split.rows, faults, split.digests)


def read_relation_table(
    source: str,
    *,
    columns: dict[str, str],
    **layout: Unpack[TableLayout],
) -> Split:
    """Read a table that names the two entities of a text by their surface forms alone.

    `columns` maps text, head, tail and label to the columns of the file. Each entity is taken at
    its first occurrence; if the two overlap there, at the first pair of occurrences that do not.
    If all pairs overlap, one entity is inside the other.

    Raises:
        DataError: as `read_table`; or an entity does not occur in its text.
        ConfigError: as `read_table`, or `columns` are not the four.
    """
    if sorted(columns) != ["head", "label", "tail", "text"]:
        received = ", ".join(sorted(columns)) or "none"
        raise ConfigError(f"data.reader.columns: name text, head, tail and label, not {received}.")
    option = "data.reader.columns"
    split = read_columns(source, columns, option=option, **layout)
    faults: list[str] = []
    for row in split.rows:
        heads, tails = (_find_occurrences(row[name], row["text"]) for name in ("head", "tail"))
        for name, occurrences in (("head", heads), ("tail", tails)):
            if not occurrences:
                faults.append(f"{row['where']}: {name} {row[name]!r} does not occur in the text")
        if heads and tails:
            pairs = ((h, t) for h in heads for t in tails if h[1] <= t[0] or t[1] <= h[0])
            row["head"], row["tail"] = next(pairs, (heads[0], tails[0]))
    return make_split(split.rows, faults, split.digests)


def _find_occurrences(form: str, text: str) -> list[list[int]]:
    starts = [match.start() for match in re.finditer(f"(?={re.escape(form)})", text)]
    return [[start, start + len(form)] for start in starts]


def read_semeval(source: str, *, encoding: str = "utf-8") -> Split:
    """Read the blocks of SemEval-2010 Task 8: a numbered sentence, its relation, a comment.

    The sentence is in double quotes after its number and a tab, the comment is optional, and a
    blank line ends the block.

    Raises:
        DataError: the file is missing or not in its encoding, or a block is malformed.
    """
    content, digest = read_file(source, encoding)
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for block in iterate_blocks(iterate_lines(content)):
        where = f"{source}:{block[0][0]}"
        with collect_faults(faults, where):
            rows.append({**_parse_block([line for _, line in block]), "where": where})
    return make_split(rows, faults, {source: digest})


def _parse_block(lines: list[str]) -> dict[str, Any]:
    numbered = NUMBERED.fullmatch(lines[0])
    if not numbered:
        raise ValueError('a block starts with a number, a tab and a sentence in "…"')
    if len(lines) not in (2, 3):
        raise ValueError(f"{len(lines)} lines in a block: sentence, relation and comment are 3")
    if len(lines) == 3 and not lines[2].startswith("Comment"):
        raise ValueError("the third line of a block is its comment and starts with 'Comment'")
    number, text = numbered.groups()
    return {"id": number, **unmark(text)._asdict(), "label": lines[1].strip()}


def read_tacred(source: str, *, encoding: str = "utf-8") -> Split:
    """Read TACRED's JSON, a list of sentences in words, one row a sentence; spaces join the words.

    Raises:
        DataError: the file is missing, no JSON list, or a sentence lacks a key or a span of words.
    """
    content, digest = read_file(source, encoding)
    sentences = parse_json(source, content)
    if not isinstance(sentences, list):
        raise DataError([f"{source}: no JSON list of sentences"])
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, sentence in enumerate(sentences, start=1):
        where = f"{source}:{number}"  # the file is one line: the number of the sentence
        with collect_faults(faults, where):
            rows.append({**_parse_sentence(sentence), "where": where})
    return make_split(rows, faults, {source: digest})


def _parse_sentence(sentence: dict[str, Any]) -> dict[str, Any]:
    words = sentence["token"]
    head, tail = (
        compute_offsets(words, sentence[f"{name}_start"], sentence[f"{name}_end"])
        for name in ("subj", "obj")
    )
    row = {"id": sentence["id"], "label": sentence["relation"]}
    if not all(isinstance(value, str) and value for value in row.values()):
        raise ValueError("its id or relation is no text")
    return {**row, "text": " ".join(words), "head": head, "tail": tail}


def compute_offsets(words: Sequence[str], first: int, last: int) -> list[int]:
    """Return the [start, end) characters of words `first` to `last` when spaces join the words.

    Raises:
        ValueError: there are no such words.

    >>> compute_offsets(["Ana", "vive", "en", "Lima"], 1, 2)
    [4, 11]
    """
    if not 0 <= first <= last < len(words):
        raise ValueError(f"no words {first} to {last}: the sentence has {len(words)}")
    starts = [0, *accumulate(len(word) + 1 for word in words)]
    return [starts[first], starts[last + 1] - 1]
