"""Tables: TSV, CSV, JSONL and Parquet, one item a row.

`read_columns` and `read_records` are what other readers of this folder use for their own columns.
"""

import csv
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from crosstune.data.readers.files import lines_of, read_file
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError

csv.field_size_limit(2**31 - 1)  # a whole article may stand in one field

SUFFIXES = (".tsv", ".csv", ".jsonl")
Record = tuple[int, dict[str, Any] | str]  # line, and its values by column, or its fault


def read_records(
    source: str, encoding: str = "utf-8", header: Sequence[str] | None = None
) -> tuple[Iterator[Record], str]:
    """Return the rows of a TSV, CSV, JSONL (gzip allowed) or Parquet file, and its sha256.

    Rows come by column, a malformed one as a sentence on its fault in place of its values.
    `header` names the columns of a TSV or CSV file that has no header of its own; with it, a
    file that ends in .txt is TSV.

    Raises:
        ConfigError: the file's suffix is none of the four, or its rows name their own columns.
        DataError: the file cannot be read.
    """
    kind = Path(source.removesuffix(".gz")).suffix
    kind = ".tsv" if kind == ".txt" and header is not None else kind
    parquet = kind == ".parquet" and not source.endswith(".gz")
    if kind not in SUFFIXES and not parquet:
        allowed = ", ".join(SUFFIXES)
        raise ConfigError(f"{source}: a table ends in one of {allowed} (or .gz), or in .parquet.")
    if header is not None and kind in (".jsonl", ".parquet"):
        raise ConfigError(f"data.reader.header={list(header)}: {source} names its own columns.")
    if parquet:
        return _read_parquet(source)
    content, digest = read_file(source, encoding)
    if kind == ".jsonl":
        return _read_jsonl(content), digest
    return (_read_tsv if kind == ".tsv" else _read_csv)(content, list(header or [])), digest


def is_jsonl(source: str) -> bool:
    """Say whether each row of a table names its own columns."""
    return source.removesuffix(".gz").endswith(".jsonl")


def read_columns(
    source: str,
    wanted: Mapping[str, str],
    header: Sequence[str] | None = None,
    encoding: str = "utf-8",
    sets: Collection[str] = (),
    option: str = "data",
) -> Split:
    """Read some columns of a table as rows of texts, with `id` and `where`.

    `wanted` maps our columns to those of the file; those in `sets` may be empty, or hold a list of
    texts. `option` is the configuration key that faults name in front of our column.

    Raises:
        DataError: the file is missing or not in its encoding, a column is missing, a row is
            ragged, or a value is empty, no single value or no text.
        ConfigError: as `read_records`.
    """
    records, digest = read_records(source, encoding, header)
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
        fault = _fault_in(values, wanted, found, sets, option)
        if fault:
            faults.append(f"{where}: {fault}")
        if fault and fault.startswith("no column") and not is_jsonl(source):
            break  # the header lacks it: every row would say the same
        texts = {ours: _as_text(value) for ours, value in values.items()}
        rows.append({"id": str(len(rows)), **texts, "where": where})
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def read_table(
    source: str,
    *,
    text: str,
    label: str,
    text_pair: str | None = None,
    header: list[str] | None = None,
    encoding: str = "utf-8",
) -> Split:
    """Read a TSV, CSV, JSONL (gzip allowed) or Parquet file: one labelled text a row.

    TSV has no quoting, so a double quote is a character like any other; CSV is quoted as in
    RFC 4180; JSONL has one object a line; rows of Parquet are placed by their number from 1.
    `header` names the columns of a TSV (then .txt, too) or CSV file without a header of its own.

    Raises:
        DataError: the file is missing or not UTF-8, a column is missing, a row is ragged, or a
            text or label is empty.
        ConfigError: the file's suffix is none of the four, or its rows name their own columns.
    """
    return read_columns(source, _columns(text, text_pair, label), header, encoding)


def read_label_sets(
    source: str,
    *,
    text: str,
    label: str,
    text_pair: str | None = None,
    header: list[str] | None = None,
    encoding: str = "utf-8",
) -> Split:
    """Read a table as `read_table` does, where an empty label cell says that there is no label.

    The labels of JSONL and Parquet may be a list, too.

    Raises:
        DataError: as `read_table`, but for empty labels.
        ConfigError: as `read_table`.
    """
    columns = _columns(text, text_pair, label)
    return read_columns(source, columns, header, encoding, sets=("label",))


def _columns(text: str, text_pair: str | None, label: str) -> dict[str, str]:
    columns = {"text": text, "text_pair": text_pair, "label": label}
    return {ours: theirs for ours, theirs in columns.items() if theirs is not None}


def _read_parquet(source: str) -> tuple[Iterator[Record], str]:
    import pyarrow  # heavy, and only this format needs it
    from pyarrow import parquet

    try:
        raw = Path(source).read_bytes()
        table = parquet.read_table(BytesIO(raw))
    except (OSError, pyarrow.ArrowException) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else f"no readable Parquet ({error})"
        raise DataError([f"{source}: {reason}"]) from error
    batches = (batch.to_pylist() for batch in table.to_batches())
    rows = (row for batch in batches for row in batch)
    return enumerate(rows, start=1), hashlib.sha256(raw).hexdigest()


def _read_tsv(content: str, header: list[str]) -> Iterator[Record]:
    lines = list(lines_of(content))
    rest = lines if header else lines[1:]
    header = header or lines[0][1].split("\t")
    for number, line in rest:
        if line:
            yield number, _row(header, line.split("\t"))
        elif number < len(lines):
            yield number, "an empty line"


def _read_csv(content: str, header: list[str]) -> Iterator[Record]:
    reader = csv.reader([line + "\n" for _, line in lines_of(content)], strict=True)
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


def _read_jsonl(content: str) -> Iterator[Record]:
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


def _fault_in(
    values: Mapping[str, Any],
    wanted: Mapping[str, str],
    found: Mapping[str, Any],
    sets: Collection[str],
    option: str,
) -> str | None:
    for ours, theirs in wanted.items():
        if theirs not in found:
            return f"no column {theirs!r} ({option}.{ours}). The columns are: {', '.join(found)}"
        value = values[ours]
        listed = ours in sets and isinstance(value, list)
        for each in value if listed else [value]:
            if isinstance(each, list | dict | bytes):
                return f"column {theirs!r} holds a {type(each).__name__}, not one value"
            if _is_empty(each) and (listed or ours not in sets):
                return f"column {theirs!r} ({option}.{ours}) is empty"
            try:
                str(each).encode()
            except UnicodeEncodeError:
                return f"column {theirs!r} holds half of a character (a lone surrogate)"
    return None


def _as_text(value: Any) -> Any:
    """Return a value as a text, a list as a list of texts."""
    if isinstance(value, list):
        return [_as_text(each) for each in value]
    return "" if _is_empty(value) else str(value)


def _is_empty(value: Any) -> bool:
    return value is None or value != value or not str(value).strip()  # JSON's NaN
