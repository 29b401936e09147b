"""CoNLL-U, the ten columns of Universal Dependencies: one column's value a word, or segmentation.

https://universaldependencies.org/format.html. Trees are not read. `as_characters` is what every
reader of segmented text makes its rows with.
"""

import re
from collections.abc import Sequence
from typing import Any

from crosstune.data.readers.files import lines_of, read_file
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError

COLUMNS = {"upos": 3, "xpos": 4, "feats": 5, "deprel": 7}
WIDTH = 10
ID = re.compile(r"([0-9]+)(?:-([0-9]+)|\.([0-9]+))?")
BLANKS = re.compile("[ \t\u3000]+")


def read_conllu(
    source: str, *, column: str = "upos", characters: bool = False, encoding: str = "utf-8"
) -> Split:
    """Read CoNLL-U (gzip allowed): the syntactic words, each with its value in one column.

    `column` is upos, xpos, feats or deprel. Words are the lines whose id is a whole number: the
    line of a contraction (1-2, Spanish "del") is passed over for the words inside it ("de", "el"),
    and so is an empty node (1.1), which stands for no text. With `characters` the words are
    characters instead, tagged B, M, E or S by where in a word they stand; no column is read.

    Raises:
        ConfigError: there is no such column.
        DataError: the file is missing or not UTF-8, a row has not ten columns, the ids of a
            sentence do not count up from 1, or a word or its value is missing (`_`; in feats it
            says that there is none).
    """
    if column not in COLUMNS:
        raise ConfigError(f"data.reader.column={column}. Allowed: {', '.join(COLUMNS)}.")
    content, digest = read_file(source, encoding)
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    words: list[str] = []
    tags: list[str] = []
    started = last = 0  # line of the sentence's first row, id of its latest word
    for number, line in [*lines_of(content), (0, "")]:
        if not line.strip():
            if words:
                pair = as_characters(words) if characters else {"words": words, "tags": tags}
                rows.append({"id": str(len(rows)), **pair, "where": f"{source}:{started}"})
            words, tags, started, last = [], [], 0, 0
            continue
        if not started and line.startswith("#"):
            continue
        started = started or number
        cells = line.split("\t")
        fault = _fault_in(cells, last, None if characters else column)
        if fault:
            faults.append(f"{source}:{number}: {fault}")
        if cells[0].isdecimal():
            last = int(cells[0])
            if not fault:
                words.append(cells[1])
                tags.append(cells[COLUMNS[column]])
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def read_segmented(source: str, *, encoding: str = "utf-8") -> Split:
    """Read segmented text (gzip allowed): one sentence a line, its words parted by blanks.

    Blanks are spaces, tabs and ideographic spaces, one or more. The words of a row are characters,
    tagged B, M, E or S by where in a word they stand. Empty lines are passed over.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    content, digest = read_file(source, encoding)
    rows: list[dict[str, Any]] = []
    for number, line in lines_of(content):
        if words := [word for word in BLANKS.split(line) if word]:
            where = f"{source}:{number}"
            rows.append({"id": str(len(rows)), **as_characters(words), "where": where})
    return Split(rows, {source: digest})


def as_characters(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the characters of words, blanks left out, and the tags B, M, E or S of each.

    >>> as_characters(["小明", "住"])
    {'words': ['小', '明', '住'], 'tags': ['B', 'E', 'S']}
    """
    found = [BLANKS.sub("", word) for word in words]
    tags = ["S" if len(w) == 1 else "B" + "M" * (len(w) - 2) + "E" for w in found if w]
    return {"words": list("".join(found)), "tags": list("".join(tags))}


def _fault_in(cells: list[str], last: int, column: str | None) -> str | None:
    if len(cells) != WIDTH:
        return f"{len(cells)} columns where CoNLL-U has {WIDTH}"
    place = ID.fullmatch(cells[0])
    if place is None:
        return f"{cells[0]!r} is no id of CoNLL-U"
    first, end, empty = int(place[1]), place[2], place[3]
    if first != (last if empty else last + 1) or (end and int(end) < first):
        return f"the id {cells[0]} after the word {last}" if last else f"a first id {cells[0]}"
    if end or empty:
        return None
    if not cells[1].strip():
        return "an empty word"
    value = cells[COLUMNS[column]] if column else "given"
    if not value.strip() or (value == "_" and column != "feats"):
        return f"no {column} ({value})"
    return None
