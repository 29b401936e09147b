"""CoNLL columns: one word a line, a blank line between sentences."""

import re
from typing import Any

from crosstune.data.readers.files import lines_of, read_file
from crosstune.data.splits import Split
from crosstune.errors import DataError


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
    the words are read without tags. With `strip_digit` each word ends in a digit that says where
    in a larger word it stands (Weibo's "科0"), and loses it. With `skip_empty` a row without a
    word, but with the tag O, is left out (the Chinese files of xSID have some).

    Columns are parted by tabs where the first row holds one, else by spaces. Lines that
    start with `#` and hold no further column before a sentence are comments; `-DOCSTART-` rows
    are document marks, not sentences.

    Raises:
        DataError: the file is missing or not UTF-8, a row is ragged, a word or tag is empty, or the
            digit to strip is not there.
    """
    content, digest = read_file(source, encoding)
    lines = [
        (number, "" if line.startswith("-DOCSTART-") else line)
        for number, line in lines_of(content)
    ]
    filled = [text for _, text in lines if text.strip()]
    plain = (text for text in filled if "\t" in text or not text.startswith("#"))
    first = next(plain, filled[0] if filled else "")
    tabs = "\t" in first
    width = len(_columns(first, tabs))
    faults: list[str] = []
    columns = [word] if tag is None else [word, tag]
    if first and not (all(-width <= c < width for c in columns) and width >= len(columns)):
        raise DataError(
            [f"{source}: {width} columns, but the word is column {word} and the tag column {tag}"]
        )
    rows: list[dict[str, Any]] = []
    row: dict[str, Any] = {}
    for number, line in [*lines, (0, "")]:
        if not line.strip():
            rows += [row] if row else []
            row = {}
            continue
        if not row and _is_comment(line, tabs):
            continue
        cells = _columns(line, tabs)
        empty = len(cells) == width and not cells[word].strip()
        if skip_empty and empty and (tag is None or cells[tag] == "O"):
            continue
        if fault := _fault_in(cells, width, columns, strip_digit):
            faults.append(f"{source}:{number}: {fault}")
            continue
        row = row or {"id": str(len(rows)), "words": [], "tags": [], "where": f"{source}:{number}"}
        row["words"].append(cells[word][:-1] if strip_digit else cells[word])
        if tag is not None:
            row["tags"].append(cells[tag].strip())
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def _columns(line: str, tabs: bool) -> list[str]:
    # str.split would also part a word at a no-break space or an ideographic one
    return line.split("\t") if tabs else re.split("[ \t]+", line.strip(" \t"))


def _is_comment(line: str, tabs: bool) -> bool:
    if tabs:
        return line.startswith("#") and "\t" not in line
    return line.startswith("# ") and (" = " in line or line.startswith(("# newdoc", "# newpar")))


def _fault_in(cells: list[str], width: int, columns: list[int], digit: bool) -> str | None:
    if len(cells) != width:
        return f"{len(cells)} columns where the first row has {width}"
    word = columns[0]
    if not all(cells[column].strip() for column in columns):
        return "an empty word or tag"
    if digit and not re.fullmatch(".+[0-9]", cells[word], re.DOTALL):
        return f"{cells[word]!r} is no word and a digit (data.reader.strip_digit)"
    return None
