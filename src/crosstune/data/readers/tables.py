"""Tables: TSV, CSV, JSONL and Parquet, one item a row.

Readers with columns of their own build on `parse_table` and `read_columns`.
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict, Unpack

from crosstune.data.readers.file_kind import check_is_lines
from crosstune.data.readers.files import has_lone_surrogate, iterate_lines, make_split, read_file
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError
from crosstune.files import read_regular

csv.field_size_limit(2**31 - 1)  # one field may hold a whole article

_QUOTED = re.compile('"(?:[^"]|"")*"')
_PRINTED_LIST = re.compile(r"""\[\s*(?:(?:"[^"]*"|'[^']*')\s*,?\s*)+\]""")
SUFFIXES = (".tsv", ".csv", ".jsonl")
_SEPARATORS = ";\t|,"  # looked for in a header of one column
Values = dict[str, Any]  # by column
TableRecord = tuple[int, Values | str]  # line, and its values or its fault


class TableLayout(TypedDict, total=False):
    r"""How a table is written; what is left out follows from the suffix of its name.

    `header` names the columns of a TSV (then also .txt) or CSV file without a header of its own.
    `separator` is the character between columns: by default a tab in TSV (also written `\t`) and a
    comma in CSV.
    """

    header: Sequence[str] | None
    encoding: str
    separator: str | None


def read_table(
    source: str,
    *,
    text: str,
    label: str,
    text_pair: str | None = None,
    **layout: Unpack[TableLayout],
) -> Split:
    """Read a TSV, CSV, JSONL (gzip allowed) or Parquet file: one labelled text a row.

    CSV is quoted as in RFC 4180, and so is TSV if every cell with a double quote is; in other TSV a
    double quote is a character like any other. JSONL has one object a line; rows of Parquet are
    numbered from 1. `layout` describes TSV and CSV, see `TableLayout`.

    Raises:
        DataError: the file is missing or not UTF-8, a column is missing, a row is ragged, or a
            text or label is empty.
        ConfigError: the file's suffix is none of the four, or `layout` does not fit it.
    """
    return read_columns(source, _name_columns(text, text_pair, label), **layout)


def read_label_sets(
    source: str,
    *,
    text: str,
    label: str,
    text_pair: str | None = None,
    **layout: Unpack[TableLayout],
) -> Split:
    """Read a table as `read_table` does, where an empty label cell means that there is no label.

    The labels of JSONL and Parquet may also be a list.

    Raises:
        DataError: as `read_table`, but for empty labels.
        ConfigError: as `read_table`.
    """
    columns = _name_columns(text, text_pair, label)
    return read_columns(source, columns, sets=("label",), **layout)


def _name_columns(text: str, text_pair: str | None, label: str) -> dict[str, str]:
    columns = {"text": text, "text_pair": text_pair, "label": label}
    return {ours: theirs for ours, theirs in columns.items() if theirs is not None}


def read_columns(
    source: str,
    columns: Mapping[str, str],
    sets: Collection[str] = (),
    option: str = "data",
    **layout: Unpack[TableLayout],
) -> Split:
    """Read some columns of a table as rows of texts, with `id` and `where`.

    `columns` maps our columns to those of the file; those in `sets` may be empty, or hold a list
    of texts. `option` is the configuration key that faults name in front of our column.

    Raises:
        DataError: the file is missing or not in its encoding, a column is missing, a row is
            ragged, or a value is empty, no single value or no text.
        ConfigError: as `read_table_records`.
    """

    def parse(values: Values) -> tuple[Values, list[str]]:
        faults = (
            _find_cell_fault(value, columns[ours], f"{option}.{ours}", ours in sets)
            for ours, value in values.items()
        )
        fault = next(filter(None, faults), None)
        texts = {ours: _convert_to_text(value) for ours, value in values.items()}
        return texts, [fault] if fault else []

    return parse_table(source, columns, parse, option, **layout)


def _find_cell_fault(value: Any, column: str, key: str, is_set: bool) -> str | None:
    is_list = is_set and isinstance(value, list)
    for item in value if is_list else [value]:
        if isinstance(item, list | dict | bytes):
            return f"column {column!r} holds a {type(item).__name__}, not one value"
        if _is_empty(item) and (is_list or not is_set):
            return f"column {column!r} ({key}) is empty"
        if key.endswith(".label") and _PRINTED_LIST.fullmatch(str(item).strip()):
            return (
                f"column {column!r} ({key}) holds a printed list, {item}: data=files_multilabel "
                "reads sets of labels, written label,label or as JSON lists"
            )
        if has_lone_surrogate(str(item)):
            return f"column {column!r} holds half of a character (a lone surrogate)"
    return None


def _convert_to_text(value: Any) -> Any:
    if isinstance(value, list):
        return [_convert_to_text(item) for item in value]
    return "" if _is_empty(value) else str(value)


def _is_empty(value: Any) -> bool:
    return value is None or value != value or not str(value).strip()  # JSON's NaN


def parse_table(
    source: str,
    columns: Mapping[str, str],
    parse: Callable[[Values], tuple[Values, list[str]]],
    option: str = "data",
    **layout: Unpack[TableLayout],
) -> Split:
    """Read a table with a function that turns the values of `columns` into a row and its faults.

    Raises:
        DataError: the file is missing or not in its encoding, a column is missing, a row is
            ragged, or `parse` returns faults.
        ConfigError: as `read_table_records`.
    """
    records, digest = read_table_records(source, **layout)
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    for line, record in records:
        where = f"{source}:{line}"
        if isinstance(record, str):
            faults.append(f"{where}: {record}")
            if record.startswith("the header"):
                break
            continue
        if len(record) > 1 and all(value == name for name, value in record.items()):
            faults.append(f"{where}: the header is repeated; a file has one, in its first line")
            continue
        missing = next((ours for ours, theirs in columns.items() if theirs not in record), None)
        if missing:
            faults.append(
                f"{where}: no column {columns[missing]!r} ({option}.{missing}). "
                f"{_describe_columns(record)}"
            )
            if not is_jsonl(source):
                break  # the header lacks it: every row would report the same
            continue
        values, row_faults = parse({ours: record[theirs] for ours, theirs in columns.items()})
        faults += [f"{where}: {fault}" for fault in row_faults]
        rows.append({"id": str(len(rows)), **values, "where": where})
    return make_split(rows, faults, {source: digest})


def _describe_columns(record: Values) -> str:
    """Return which columns a row has, and where a missing one may be."""
    objects = [key for key, value in record.items() if isinstance(value, dict)]
    inside = (
        f". The object {objects[0]!r} holds {', '.join(map(repr, record[objects[0]]))}: columns "
        "are read from the top of each line's object"
        if objects
        else ""
    )
    shown = ", ".join(record) or "none"
    return f"The columns are: {shown}{inside}{_suggest_separator(list(record))}"


def _suggest_separator(header: Sequence[str]) -> str:
    """Return a hint for a header of one column that another character seems to separate."""
    separator = next((mark for mark in _SEPARATORS if len(header) == 1 and mark in header[0]), "")
    if not separator:
        return ""
    name, spelt = ("a tab", "\\t") if separator == "\t" else (repr(separator), separator)
    return (
        f". The header is one column, {header[0]!r}, and {name} may be what separates several: "
        f"\"data.reader.separator='{spelt}'\" reads it so"
    )


def read_table_records(
    source: str, **layout: Unpack[TableLayout]
) -> tuple[Iterator[TableRecord], str]:
    """Return the rows of a TSV, CSV, JSONL (gzip allowed) or Parquet file, and its sha256.

    A malformed row is a message about its fault in place of its values. With a header in `layout`,
    a file that ends in .txt is TSV.

    Raises:
        ConfigError: the file's suffix is none of the four, or `layout` does not fit it.
        DataError: the file cannot be read.
    """
    header, separator = layout.get("header"), layout.get("separator")
    suffix = Path(source.removesuffix(".gz")).suffix
    suffix = ".tsv" if suffix == ".txt" and header is not None else suffix
    parquet = suffix == ".parquet" and not source.endswith(".gz")
    if suffix not in SUFFIXES and not parquet:
        allowed = ", ".join(SUFFIXES)
        raise ConfigError(f"{source}: a table ends in one of {allowed} (or .gz), or in .parquet.")
    for name, value in (("header", header and list(header)), ("separator", separator)):
        if value is not None and suffix in (".jsonl", ".parquet"):
            raise ConfigError(f"data.reader.{name}={value}: {source} names its own columns.")
    if parquet:
        return _read_parquet(source)
    content, digest = read_file(source, layout.get("encoding", "utf-8"))
    if suffix == ".jsonl":
        return parse_json_lines(content), digest
    check_is_lines(source, content)
    separator = _check_separator(separator or ("\t" if suffix == ".tsv" else ","))
    quoted = suffix == ".csv" or _is_quoted(content, separator)
    parse = _parse_quoted if quoted else _parse_plain
    return parse(content, list(header or []), separator), digest


def _check_separator(separator: str) -> str:
    """Return the separator, a tab where it is spelt as backslash and t."""
    separator = "\t" if separator == "\\t" else separator
    if len(separator) != 1 or separator in '"\r\n\ufeff':
        raise ConfigError(
            f"data.reader.separator={separator!r}: give one character that is no quote and no "
            "line end."
        )
    return separator


def is_jsonl(source: str) -> bool:
    """Return whether each row of a table names its own columns."""
    return source.removesuffix(".gz").endswith(".jsonl")


def _read_parquet(source: str) -> tuple[Iterator[TableRecord], str]:
    import pyarrow  # slow to import, and only this format needs it
    from pyarrow import parquet

    try:
        raw = read_regular(Path(source))
        table = parquet.read_table(BytesIO(raw))
    except (OSError, pyarrow.ArrowException) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file" if missing else f"no readable Parquet ({error})"
        raise DataError([f"{source}: {reason}"]) from error
    rows = (row for batch in table.to_batches() for row in _convert_batch(batch))
    return enumerate(rows, start=1), hashlib.sha256(raw).hexdigest()


def _convert_batch(batch: Any) -> Iterator[Values | str]:
    """Yield the rows of an Arrow record batch, or the fault of a row that has no Python value."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):  # invalid UTF-8, a date beyond the year 9999
        for index in range(len(batch)):
            yield _convert_row(batch.slice(index, 1))


def _convert_row(row: Any) -> Values | str:
    values: Values = {}
    for name in row.schema.names:
        try:
            values[name] = row.column(name).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            return f"column {name!r} holds a value that cannot be read ({error})"
    return values


def _is_quoted(content: str, separator: str) -> bool:
    """Return whether a TSV is quoted as CSV is, the way pandas writes it.

    Every cell with a quote must be well-formed, and one must have a doubled quote inside: a text
    that is all in quotes is no evidence.
    """
    lines = (line for _, line in iterate_lines(content) if '"' in line)
    cells = [cell for line in lines for cell in line.split(separator) if '"' in cell]
    return all(map(_QUOTED.fullmatch, cells)) and any('""' in cell[1:-1] for cell in cells)


def _parse_plain(content: str, header: list[str], separator: str) -> Iterator[TableRecord]:
    """Yield the rows of a table in which a double quote is a character like any other."""
    lines = list(iterate_lines(content))
    rest = lines if header else lines[1:]
    header = header or _name_header(lines[0][1].split(separator))
    for number, line in rest:
        if line:
            yield number, _make_record(header, line.split(separator))
        elif number < len(lines):
            yield number, "an empty line"


def _parse_quoted(content: str, header: list[str], separator: str) -> Iterator[TableRecord]:
    """Yield the rows of a table that is quoted as in RFC 4180."""
    lines = [line + "\n" for _, line in iterate_lines(content)]
    reader = csv.reader(lines, strict=True, delimiter=separator)
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
            header = _name_header(cells)
        elif cells:
            yield line, _make_record(header, cells)


def _name_header(cells: Sequence[str]) -> list[str]:
    """Return the names of the columns; one without a name gets the one that pandas would give."""
    return [name or f"Unnamed: {index}" for index, name in enumerate(cells)]


def parse_json_lines(content: str) -> Iterator[TableRecord]:
    """Yield the objects of JSONL, or a message about the fault of a line; skip blank lines."""
    for number, line in iterate_lines(content):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, f"malformed JSON at column {error.colno} ({error.msg})"
        except (ValueError, RecursionError) as error:  # an integer too long, or nested too deep
            yield number, f"malformed JSON ({error})"
        else:
            yield number, value if isinstance(value, dict) else _explain_json(value)


def _explain_json(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "a JSON array, where each line holds one object (jq -c '.[]' FILE writes it so)"
    return "not a JSON object"


def _make_record(header: list[str], cells: list[str]) -> dict[str, str] | str:
    if len(cells) != len(header):
        hint = _suggest_separator(header)
        return f"{len(cells)} columns where the header has {len(header)}{hint}"
    record = dict(zip(header, cells, strict=True))
    if len(record) < len(header):
        repeated = next(name for name in record if header.count(name) > 1)
        return f"the header names the column {repeated!r} twice"
    return record
