"""Readers for tagged words: CoNLL columns, CoNLL-U, and segmented text, one sentence a line."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import dropwhile
from typing import Any, NamedTuple

from crosstune.data.readers.file_kind import check_is_lines
from crosstune.data.readers.files import iterate_blocks, iterate_lines, make_split, read_file
from crosstune.data.splits import Split
from crosstune.data.tag_schemes import SPAN_TAG
from crosstune.errors import ConfigError, DataError

CONLLU_COLUMNS = {"upos": 3, "xpos": 4, "feats": 5, "deprel": 7}
CONLLU_WIDTH = 10
CONLLU_ID = re.compile(r"([0-9]+)(?:-([0-9]+)|\.([0-9]+))?")
MAX_WORDS = 1000  # of a file without a blank line
BLANKS = re.compile("[ \t\u3000]+")


def read_conll(
    source: str,
    *,
    word: int = 0,
    tag: int | None = -1,
    strip_digit: bool = False,
    skip_empty: bool = False,
    encoding: str = "utf-8",
) -> Split:
    """Read CoNLL columns (gzip allowed): one word a line, a blank line between sentences.

    `word` and `tag` are numbers of columns, from 0, or from -1 at the right end; with `tag` null
    the words are read without tags. `strip_digit` removes the digit at the end of each word that
    gives its position in a larger word (Weibo's "科0"). `skip_empty` leaves out a row whose word is
    empty or a blank, and whose tag is O (the Chinese files of xSID have some).

    Columns are separated by tabs if the first row holds one, else by spaces. Before a sentence, a
    line of "#" and text is a comment unless it ends in a tag of the rows. `-DOCSTART-` rows are
    document marks, not sentences.

    Raises:
        DataError: the file is missing or not UTF-8, a row is ragged, a word or tag is empty, the
            digit to strip is missing, or no blank line separates a thousand words.
    """
    content, digest = read_file(source, encoding)
    check_is_lines(source, content)
    lines = [
        (number, "" if line.startswith("-DOCSTART-") else line)
        for number, line in iterate_lines(content)
    ]
    layout = _detect_layout([line for _, line in lines if line.strip()], tag)
    width = layout.width
    columns = [word] if tag is None else [word, tag]
    if width and not (all(-width <= c < width for c in columns) and width >= len(columns)):
        raise DataError(
            [f"{source}: {width} columns, but the word is column {word} and the tag column {tag}"]
        )
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for block in iterate_blocks(lines):
        row: dict[str, Any] = {}
        for number, line in block:
            if not row and _is_comment(line, layout, tag):
                continue
            where = f"{source}:{number}"
            cells = _split_row(line, layout, word)
            empty = len(cells) == width and not cells[word].strip()
            if skip_empty and empty and (tag is None or cells[tag] == "O"):
                continue
            if fault := _find_row_fault(cells, width, columns, strip_digit):
                faults.append(f"{where}: {fault}")
                continue
            row = row or {"id": str(len(rows)), "words": [], "tags": [], "where": where}
            row["words"].append(cells[word][:-1] if strip_digit else cells[word])
            if tag is not None:
                row["tags"].append(cells[tag].strip())
        rows += [row] if row else []
    if len(rows) == 1 and len(rows[0]["words"]) > MAX_WORDS:
        faults.append(
            f"{source}: the file is one sentence of {len(rows[0]['words']):,} words; "
            "put a blank line between sentences"
        )
    return make_split(rows, faults, {source: digest})


class Layout(NamedTuple):
    """How the rows of a file are written."""

    tabs: bool  # separate the columns, else blanks
    width: int  # number of columns
    tags: set[str]  # of the rows that do not start with "#"


def _detect_layout(lines: list[str], tag: int | None) -> Layout:
    rows = [line for line in lines if not line.startswith("#")] or lines
    if not rows:
        return Layout(False, 0, set())
    tabs = "\t" in rows[0]
    split = [_split_columns(row, tabs) for row in rows]
    width = len(split[0])
    if tag is None or not -width <= tag < width:
        return Layout(tabs, width, set())
    return Layout(tabs, width, {row[tag] for row in split if len(row) == width})


def _split_columns(line: str, tabs: bool) -> list[str]:
    # str.split would also split a word at a no-break space or an ideographic one
    return line.split("\t") if tabs else re.split("[ \t]+", line.strip(" \t"))


def _split_row(line: str, layout: Layout, word: int) -> list[str]:
    """Return the columns of a row; one whose word is a space has an empty word."""
    cells = _split_columns(line, layout.tabs)
    lacks_word = len(cells) == layout.width - 1 and line.startswith(" ") and word == 0
    return ["", *cells] if lacks_word and not layout.tabs else cells


def _is_comment(line: str, layout: Layout, tag: int | None) -> bool:
    if not line.startswith("#") or line.strip() == "#":
        return False
    if layout.tabs and "\t" not in line:
        return True
    if not line.startswith("# "):
        return False
    if layout.tabs or " = " in line or line.startswith(("# newdoc", "# newpar")):
        return True
    cells = _split_columns(line, layout.tabs)
    if tag is None:
        return "=" in line or len(cells) != layout.width
    last = cells[tag if len(cells) == layout.width else -1]
    return last not in layout.tags and not SPAN_TAG.fullmatch(last)


def _find_row_fault(cells: list[str], width: int, columns: list[int], digit: bool) -> str | None:
    if len(cells) != width:
        return f"{len(cells)} columns where the first row has {width}"
    word = columns[0]
    if not cells[word].strip():
        character = cells[word][:1] or " "
        written = f"U+{ord(character):04X} {unicodedata.name(character, 'a control character')}"
        return (
            f"an empty word: it is {written}. data.reader.skip_empty=true leaves such rows out "
            "where their tag is O"
        )
    if not all(cells[column].strip() for column in columns):
        return "an empty tag"
    if digit and not re.fullmatch(".+[0-9]", cells[word], re.DOTALL):
        return f"{cells[word]!r} is no word and a digit (data.reader.strip_digit)"
    return None


def read_conllu(
    source: str, *, column: str = "upos", characters: bool = False, encoding: str = "utf-8"
) -> Split:
    """Read CoNLL-U (gzip allowed): the syntactic words, each with its value in one column.

    `column` is upos, xpos, feats or deprel; trees are not read. Words are the lines whose id is a
    whole number: the line of a contraction (1-2, Spanish "del") is skipped in favour of the words
    inside it ("de", "el"), and so is an empty node (1.1), which stands for no text. With
    `characters` the words are characters instead, tagged B, M, E or S by their position in a word;
    no column is read. https://universaldependencies.org/format.html

    Raises:
        ConfigError: there is no such column.
        DataError: the file is missing or not UTF-8, a row has not ten columns, the ids of a
            sentence do not count up from 1, or a word or its value is missing (`_`; in feats it
            means that there is none).
    """
    if column not in CONLLU_COLUMNS:
        raise ConfigError(f"data.reader.column={column}. Allowed: {', '.join(CONLLU_COLUMNS)}.")
    content, digest = read_file(source, encoding)
    check_is_lines(source, content)
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for block in iterate_blocks(iterate_lines(content)):
        lines = list(dropwhile(lambda line: line[1].startswith("#"), block))
        words: list[str] = []
        tags: list[str] = []
        last_id = 0
        for number, line in lines:
            cells = line.split("\t")
            fault = _find_conllu_fault(cells, last_id, None if characters else column)
            if fault:
                faults.append(f"{source}:{number}: {fault}")
            if cells[0].isdecimal():
                last_id = int(cells[0])
                if not fault:
                    words.append(cells[1])
                    tags.append(cells[CONLLU_COLUMNS[column]])
        if words:
            columns = split_characters(words) if characters else {"words": words, "tags": tags}
            rows.append({"id": str(len(rows)), **columns, "where": f"{source}:{lines[0][0]}"})
    return make_split(rows, faults, {source: digest})


def _find_conllu_fault(cells: list[str], last_id: int, column: str | None) -> str | None:
    if len(cells) != CONLLU_WIDTH:
        return f"{len(cells)} columns where CoNLL-U has {CONLLU_WIDTH}"
    match = CONLLU_ID.fullmatch(cells[0])
    if match is None:
        return f"{cells[0]!r} is no id of CoNLL-U"
    first, end, empty_node = int(match[1]), match[2], match[3]
    if first != (last_id if empty_node else last_id + 1) or (end and int(end) < first):
        if last_id:
            return f"the id {cells[0]} after the word {last_id}"
        return f"a first id {cells[0]}"
    if end or empty_node:
        return None
    if not cells[1].strip():
        return "an empty word"
    if column:
        value = cells[CONLLU_COLUMNS[column]]
        if not value.strip() or (value == "_" and column != "feats"):
            return f"no {column} ({value})"
    return None


def read_segmented(source: str, *, encoding: str = "utf-8") -> Split:
    """Read segmented text (gzip allowed): one sentence a line, its words separated by blanks.

    Blanks are spaces, tabs and ideographic spaces, one or more. The words of a row are characters,
    tagged B, M, E or S by their position in a word. Empty lines are skipped.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    content, digest = read_file(source, encoding)
    check_is_lines(source, content)
    rows: list[dict[str, Any]] = []
    for number, line in iterate_lines(content):
        if words := [word for word in BLANKS.split(line) if word]:
            where = f"{source}:{number}"
            rows.append({"id": str(len(rows)), **split_characters(words), "where": where})
    return Split(rows, {source: digest})


def split_characters(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the characters of words without blanks, and the tag B, M, E or S of each.

    >>> split_characters(["小明", "住"])
    {'words': ['小', '明', '住'], 'tags': ['B', 'E', 'S']}
    """
    words = [BLANKS.sub("", word) for word in words]
    tags = ["S" if len(w) == 1 else "B" + "M" * (len(w) - 2) + "E" for w in words if w]
    return {"words": list("".join(words)), "tags": list("".join(tags))}
