"""Tables: TSV, CSV and JSONL with a header, one item a row.

`read_records` is what other readers of this folder use for their own columns.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crosstune.data.readers.files import lines_of, read_file
from crosstune.data.split import Split
from crosstune.errors import ConfigError, DataError

csv.field_size_limit(2**31 - 1)  # a whole article may stand in one field

SUFFIXES = (".tsv", ".csv", ".jsonl")
Record = tuple[int, dict[str, Any] | str]  # line, and its values by column, or its fault


def read_records(source: str, encoding: str = "utf-8") -> tuple[Iterator[Record], str]:
    """Return the rows of a TSV, CSV or JSONL file (gzip allowed) by column, and its sha256.

    A row that is malformed comes as a sentence on its fault in place of its values.

    Raises:
        ConfigError: the file's suffix is none of the three.
        DataError: the file cannot be read.
    """
    kind = Path(source.removesuffix(".gz")).suffix
    if kind not in SUFFIXES:
        raise ConfigError(f"{source}: a table ends in one of {', '.join(SUFFIXES)} (or .gz).")
    content, digest = read_file(source, encoding)
    return {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl}[kind](content), digest


def is_jsonl(source: str) -> bool:
    """Say whether each row of a table names its own columns."""
    return source.removesuffix(".gz").endswith(".jsonl")


def read_table(
    source: str,
    *,
    text: str,
    label: str,
    text_pair: str | None = None,
    encoding: str = "utf-8",
) -> Split:
    """Read a TSV, CSV or JSONL file with a header (gzip allowed): one labelled text a row.

    TSV has no quoting, so a double quote is a character like any other; CSV is quoted as in
    RFC 4180; JSONL has one object a line.

    Raises:
        DataError: the file is missing or not UTF-8, a column is missing, a row is ragged, or a
            text or label is empty.
        ConfigError: the file's suffix is none of the three.
    """
    records, digest = read_records(source, encoding)
    columns = {"text": text, "text_pair": text_pair, "label": label}
    wanted = {ours: theirs for ours, theirs in columns.items() if theirs is not None}
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for line, found in records:
        where = f"{source}:{line}"
        if isinstance(found, str):
            faults.append(f"{where}: {found}")
            if found.startswith("the header"):
                break
            continue
        values = {ours: found.get(theirs) for ours, theirs in wanted.items()}
        fault = _fault_in(values, wanted, found)
        if fault:
            faults.append(f"{where}: {fault}")
        if fault and fault.startswith("no column") and not is_jsonl(source):
            break  # the header lacks it: every row would say the same
        rows.append(
            {"id": str(len(rows)), **{k: str(v) for k, v in values.items()}, "where": where}
        )
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def _read_tsv(content: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    lines = list(lines_of(content))
    header = lines[0][1].split("\t")
    for number, line in lines[1:]:
        if line:
            yield number, _row(header, line.split("\t"))
        elif number < len(lines):
            yield number, "an empty line"


def _read_csv(content: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    reader = csv.reader([line + "\n" for _, line in lines_of(content)], strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1  # where the row starts: a quoted field may hold line feeds
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, f"malformed CSV ({error})"
            return
        if cells is None:
            return
        if not header:
            header = cells
        elif cells:
            yield line, _row(header, cells)


def _read_jsonl(content: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in lines_of(content):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, f"malformed JSON at column {error.colno} ({error.msg})"
            continue
        yield number, found if isinstance(found, dict) else "not a JSON object"


def _row(header: list[str], cells: list[str]) -> dict[str, str] | str:
    if len(cells) != len(header):
        return f"{len(cells)} columns where the header has {len(header)}"
    row = dict(zip(header, cells, strict=True))
    if len(row) < len(header):
        twice = [name for name in row if name and header.count(name) > 1]
        if twice:
            return f"the header names the column {twice[0]!r} twice"
    return row


def _fault_in(values: dict[str, Any], wanted: dict[str, str], found: dict[str, Any]) -> str | None:
    for ours, theirs in wanted.items():
        if theirs not in found:
            return f"no column {theirs!r} (data.{ours}). The columns are: {', '.join(found)}"
        value = values[ours]
        if isinstance(value, list | dict):
            return f"column {theirs!r} holds a {type(value).__name__}, not one value"
        if value is None or value != value or not str(value).strip():  # JSON's NaN
            return f"column {theirs!r} (data.{ours}) is empty"
        try:
            str(value).encode()
        except UnicodeEncodeError:
            return f"column {theirs!r} holds half of a character (a lone surrogate)"
    return None
