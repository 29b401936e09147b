"""Parallel text: a text and what is to be written for it, in one table or in two files.

Translations, summaries, dialogue replies. In a table either side may be a list: the sentences of a
text are joined by spaces, the several targets of a text are its references.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

from crosstune.data.readers.files import lines_of, read_file
from crosstune.data.readers.tables import Record, is_jsonl, read_records
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError


def read_parallel(
    source: str,
    *,
    text: str | None = None,
    target: str | None = None,
    suffixes: Sequence[str] | None = None,
    header: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> Split:
    """Read parallel text: rows with `text`, `target` and all `references`, `target` the first.

    Either `text` and `target` name columns of a table as `read_records` takes it, `header` those
    of one without a header; or `source` is the stem of two files of as many lines: data/train with
    `suffixes` [en, es] is data/train.en, whose lines are the texts, and data/train.es.

    Raises:
        DataError: a file is missing or malformed, a side is empty, or the files differ in lines.
        ConfigError: neither two columns nor two suffixes are named, or the file is no table.
    """
    if suffixes is not None and text is None and target is None:
        if len(suffixes) != 2 or isinstance(suffixes, str):
            raise ConfigError(
                f"data.reader.suffixes={suffixes}: give two, that of the texts and that of the "
                "targets, as in [en, es]."
            )
        return _read_lines([f"{source}.{suffix}" for suffix in suffixes], encoding)
    if text is None or target is None or suffixes is not None:
        raise ConfigError(
            f"data.reader: text={text}, target={target}, suffixes={suffixes}. Give the columns "
            "text and target of a table, or the suffixes of two files, without the other."
        )
    records, digest = read_records(source, encoding, header)
    return Split(_read_columns(source, records, {"text": text, "target": target}), {source: digest})


def _read_lines(files: list[str], encoding: str) -> Split:
    sides: list[list[str]] = []
    digests: dict[str, str] = {}
    for file in files:
        content, digests[file] = read_file(file, encoding)
        sides.append([line.strip() for _, line in lines_of(content.removesuffix("\n"))])
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for number, pair in enumerate(zip_longest(*sides), start=1):
        if None in pair:
            short = pair.index(None)
            sizes = f"{len(sides[0])} and {len(sides[1])} lines"
            faults.append(f"{files[1 - short]}:{number}: no such line in {files[short]} ({sizes})")
            break
        empty = [file for file, line in zip(files, pair, strict=True) if not line]
        faults += [f"{file}:{number}: an empty line" for file in empty]
        rows.append(_row(len(rows), pair[0], [pair[1]], f"{files[0]}:{number}"))
    if faults:
        raise DataError(faults)
    return Split(rows, digests)


def _read_columns(
    source: str, records: Iterable[Record], columns: dict[str, str]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for line, found in records:
        where = f"{source}:{line}"
        if isinstance(found, str):
            faults.append(f"{where}: {found}")
            if found.startswith("the header"):
                break
            continue
        missing = [(ours, theirs) for ours, theirs in columns.items() if theirs not in found]
        if missing:
            ours, theirs = missing[0]
            known = ", ".join(found)
            faults.append(f"{where}: no column {theirs!r} (data.{ours}). The columns are: {known}")
            if not is_jsonl(source):
                break  # the header lacks it: every row would say the same
            continue
        sides = [_texts_of(found[theirs]) for theirs in columns.values()]
        bad = [name for name, side in zip(columns.items(), sides, strict=True) if not side]
        faults += [
            f"{where}: column {theirs!r} (data.{ours}) holds no text, or an empty one: "
            f"{str(found[theirs])[:40]!a}"
            for ours, theirs in bad
        ]
        if not bad:
            rows.append(_row(len(rows), " ".join(sides[0]), sides[1], where))
    if faults:
        raise DataError(faults)
    return rows


def _texts_of(value: Any) -> list[str]:
    """Return the texts of one cell, none where one of them is missing, empty or broken."""
    texts = value if isinstance(value, list) else [value]
    plain = [text for text in texts if isinstance(text, str | int | float)]
    found = [str(text).strip() for text in plain if text == text]  # JSON's NaN is not itself
    return found if len(found) == len(texts) and all(map(_is_text, found)) else []


def _is_text(text: str) -> bool:
    try:
        text.encode()  # JSON may hold half of a character, a lone surrogate
    except UnicodeEncodeError:
        return False
    return bool(text)


def _row(number: int, text: str, references: list[str], where: str) -> dict[str, Any]:
    sides = {"text": text, "target": references[0], "references": references}
    return {"id": str(number), **sides, "where": where}
