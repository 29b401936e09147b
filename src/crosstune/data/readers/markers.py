"""Texts with two entities: marked by <e1> and <e2>, or named by their surface forms.

Rows carry `text` without marks, `head` (e1) and `tail` (e2) as [start, end) character offsets, and
`label`. Entities in a file of their own are `brat.py`'s.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from crosstune.data.readers.files import lines_of, read_file
from crosstune.data.readers.tables import read_columns
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError

MARK = re.compile(r"</?e[12]>")
ORDER = ("<e1>", "</e1>", "<e2>", "</e2>")
NUMBERED = re.compile(r'([0-9]+)\t"(.*)"')


class Marked(NamedTuple):
    """A text without its marks, and where the entities stand in it."""

    text: str
    head: list[int]
    tail: list[int]


def unmark(text: str) -> Marked:
    """Return a text without its marks, and where they stood.

    Raises:
        ValueError: not each of the four marks stands once, or an entity is empty.

    >>> unmark("<e1>Ana</e1> vive en <e2>Lima</e2>.")
    Marked(text='Ana vive en Lima.', head=[0, 3], tail=[12, 16])
    """
    marks = MARK.findall(text)
    if sorted(marks) != sorted(ORDER):
        received = " ".join(marks) or "none"
        raise ValueError(f"its marks are {received}; each of {' '.join(ORDER)} must stand once")
    places: dict[str, int] = {}
    removed = 0
    for found in MARK.finditer(text):
        places[found.group()] = found.start() - removed
        removed += len(found.group())
    head, tail = [places["<e1>"], places["</e1>"]], [places["<e2>"], places["</e2>"]]
    if head[0] >= head[1] or tail[0] >= tail[1]:
        raise ValueError("an entity is empty, or its marks stand the wrong way round")
    return Marked(MARK.sub("", text), head, tail)


def read_marked(
    source: str,
    *,
    text: str,
    label: str,
    header: list[str] | None = None,
    encoding: str = "utf-8",
) -> Split:
    """Read a TSV, CSV, JSONL or Parquet table with <e1>, </e1>, <e2> and </e2> in its texts.

    Raises:
        DataError: as `read_table`; or a text lacks a mark, or has an empty entity.
        ConfigError: as `read_table`.
    """
    split = read_columns(source, {"text": text, "label": label}, header, encoding)
    faults: list[str] = []
    for row in split.rows:
        try:
            row.update(unmark(row["text"])._asdict())
        except ValueError as error:
            faults.append(f"{row['where']}: {error}")
    if faults:
        raise DataError(faults)
    return split


def read_semeval(source: str, *, encoding: str = "utf-8") -> Split:
    """Read the blocks of SemEval-2010 Task 8: a numbered sentence, its relation, a comment.

    The sentence stands in double quotes behind its number and a tab, the comment may be missing,
    and a blank line ends the block.

    Raises:
        DataError: the file is missing or not in its encoding, or a block is malformed.
    """
    content, digest = read_file(source, encoding)
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, block in _blocks(content):
        where = f"{source}:{number}"
        try:
            rows.append({**_read_block(block), "where": where})
        except ValueError as error:
            faults.append(f"{where}: {error}")
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def read_relation_table(
    source: str,
    *,
    columns: dict[str, str],
    header: list[str] | None = None,
    encoding: str = "utf-8",
) -> Split:
    """Read a table that names the two entities of a text by their surface forms alone.

    `columns` maps text, head, tail and label to the columns of the file. Each entity is taken at
    its first occurrence, but where the two would overlap, at the first that do not; where all of
    them overlap, one stands inside the other.

    Raises:
        DataError: as `read_table`; or an entity does not occur in its text.
        ConfigError: as `read_table`, or `columns` are not the four.
    """
    if sorted(columns) != ["head", "label", "tail", "text"]:
        received = ", ".join(sorted(columns)) or "none"
        raise ConfigError(f"data.reader.columns: name text, head, tail and label, not {received}.")
    option = "data.reader.columns"
    split = read_columns(source, columns, header, encoding, option=option)
    faults: list[str] = []
    for row in split.rows:
        heads, tails = (_occurrences(row[name], row["text"]) for name in ("head", "tail"))
        for name, found in (("head", heads), ("tail", tails)):
            if not found:
                faults.append(f"{row['where']}: {name} {row[name]!r} does not occur in the text")
        if heads and tails:
            pairs = ((h, t) for h in heads for t in tails if h[1] <= t[0] or t[1] <= h[0])
            row["head"], row["tail"] = next(pairs, (heads[0], tails[0]))
    if faults:
        raise DataError(faults)
    return split


def _occurrences(form: str, text: str) -> list[list[int]]:
    starts = [found.start() for found in re.finditer(f"(?={re.escape(form)})", text)]
    return [[start, start + len(form)] for start in starts]


def _blocks(content: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines between blank ones, with the number of the first."""
    first, block = 0, []
    for number, line in [*lines_of(content), (0, "")]:
        if line.strip():
            first = first if block else number
            block.append(line)
        elif block:
            yield first, block
            block = []


def _read_block(block: list[str]) -> dict[str, Any]:
    numbered = NUMBERED.fullmatch(block[0])
    if not numbered:
        raise ValueError('a block starts with a number, a tab and a sentence in "…"')
    if len(block) not in (2, 3):
        raise ValueError(f"{len(block)} lines in a block: sentence, relation and comment are 3")
    if len(block) == 3 and not block[2].startswith("Comment"):
        raise ValueError("the third line of a block is its comment and starts with 'Comment'")
    number, text = numbered.groups()
    return {"id": number, **unmark(text)._asdict(), "label": block[1].strip()}
