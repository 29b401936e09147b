"""File and hub readers: a source and its options to rows in canonical columns.

Every reader returns a `Split`. Rows carry `id`, `where` (file:line) and, by kind, `text`,
`text_pair`, `label` or `words`, `tags`. A malformed file raises one DataError that names every
fault; nothing is skipped, guessed or sampled. Called through `build` by `data/module.py`.
"""

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crosstune.data.split import Split
from crosstune.errors import ConfigError, DataError

csv.field_size_limit(2**31 - 1)  # a whole article may stand in one field

SUFFIXES = (".tsv", ".csv", ".jsonl")


def read_table(source: str, *, text: str, label: str, text_pair: str | None = None) -> Split:
    """Read a TSV, CSV or JSONL file with a header (gzip allowed): one labelled text a row.

    TSV has no quoting, so a double quote is a character like any other; CSV is quoted as in
    RFC 4180; JSONL has one object a line.

    Raises:
        DataError: the file is missing or not UTF-8, a column is missing, a row is ragged, or a
            text or label is empty.
        ConfigError: the file's suffix is none of the three.
    """
    content, digest = _read_utf8(source)
    kind = Path(source.removesuffix(".gz")).suffix
    if kind not in SUFFIXES:
        raise ConfigError(f"{source}: a table ends in one of {', '.join(SUFFIXES)} (or .gz).")
    columns = {"text": text, "text_pair": text_pair, "label": label}
    wanted = {ours: theirs for ours, theirs in columns.items() if theirs is not None}
    records = {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl}[kind](content)
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
        if fault and fault.startswith("no column") and kind != ".jsonl":
            break  # the header lacks it: every row would say the same
        rows.append(
            {"id": str(len(rows)), **{k: str(v) for k, v in values.items()}, "where": where}
        )
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def read_conll(source: str, *, word: int = 0, tag: int = -1) -> Split:
    """Read CoNLL columns (gzip allowed): one word a line, a blank line between sentences.

    Columns are parted by tabs where the first row holds one, else by spaces. Lines that
    start with `#` and hold no further column before a sentence are comments; `-DOCSTART-` rows
    are document marks, not sentences.

    Raises:
        DataError: the file is missing or not UTF-8, a row is ragged, or a word or tag is empty.
    """
    content, digest = _read_utf8(source)
    lines = [
        (number, "" if line.startswith("-DOCSTART-") else line) for number, line in _lines(content)
    ]
    filled = [text for _, text in lines if text.strip()]
    plain = (text for text in filled if "\t" in text or not text.startswith("#"))
    first = next(plain, filled[0] if filled else "")
    tabs = "\t" in first
    width = len(_columns(first, tabs))
    faults: list[str] = []
    if first and not (-width <= word < width and -width <= tag < width and width > 1):
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
        if len(cells) != width or not cells[word].strip() or not cells[tag].strip():
            faults.append(f"{source}:{number}: {_conll_fault(cells, width)}")
            continue
        row = row or {"id": str(len(rows)), "words": [], "tags": [], "where": f"{source}:{number}"}
        row["words"].append(cells[word])
        row["tags"].append(cells[tag].strip())
    if faults:
        raise DataError(faults)
    return Split(rows, {source: digest})


def read_text(source: str) -> Split:
    """Read plain text (gzip allowed), one paragraph a line; blank lines part paragraphs.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    content, digest = _read_utf8(source)
    rows = [
        {"id": str(number), "text": line.strip(), "where": f"{source}:{number}"}
        for number, line in _lines(content)
        if line.strip()
    ]
    return Split(rows, {source: digest})


def read_hub(
    source: str,
    *,
    path: str,
    revision: str | None,
    columns: dict[str, str],
    name: str | None = None,
) -> Split:
    """Read one split of a data set on the Hugging Face hub, or in a local folder.

    `source` is the split's name, `columns` maps our canonical columns to the data set's. Class
    indices become the names that the data set declares for them.

    Raises:
        ConfigError: the revision is no commit, or a column does not exist.
        DataError: the data set cannot be loaded.
    """
    local = Path(path).is_dir()
    if not local and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ConfigError(
            f"data.reader.revision={revision}: name the 40-digit commit of {path}, so that the "
            "data cannot change under the study."
        )
    import datasets  # heavy, and only this reader needs it

    try:
        table: Any = datasets.load_dataset(
            path, name, split=source, revision=None if local else revision
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            [f"{path} ({name or 'default'}, {source}): cannot be loaded: {error}"]
        ) from error
    missing = [theirs for theirs in columns.values() if theirs not in table.column_names]
    if missing:
        raise ConfigError(f"{path} has no column {missing[0]}. Allowed: {table.column_names}.")
    decode = {ours: _decoder(table.features[theirs]) for ours, theirs in columns.items()}
    rows = [
        {
            "id": str(number),
            **{ours: decode[ours](record[theirs]) for ours, theirs in columns.items()},
            "where": f"{path}/{source}:{number}",
        }
        for number, record in enumerate(table)
    ]
    content = json.dumps([[row[ours] for ours in columns] for row in rows])
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Split(rows, {f"{path}/{name or 'default'}/{source}": digest})


def _decoder(feature: Any) -> Any:
    inner = getattr(feature, "feature", feature)  # a list of class labels holds its feature
    if hasattr(inner, "int2str"):
        if inner is feature:
            return lambda value: inner.names[value] if value >= 0 else ""
        return lambda values: [inner.names[value] for value in values]
    return lambda value: [str(v) for v in value] if isinstance(value, list) else str(value)


def _read_utf8(source: str) -> tuple[str, str]:
    path = Path(source)
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError([f"{source}: {reason}"]) from error
    try:
        return raw.decode("utf-8-sig"), hashlib.sha256(raw).hexdigest()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1  # less the byte order mark
        byte = error.object[error.start]
        raise DataError([f"{source}:{line}: byte 0x{byte:02x} is not UTF-8"]) from error


def _lines(content: str) -> Iterator[tuple[int, str]]:
    # only line feeds end a line: str.splitlines also breaks at characters that stand inside texts
    for number, line in enumerate(content.split("\n"), start=1):
        yield number, line.removesuffix("\r")


def _read_tsv(content: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    lines = list(_lines(content))
    header = lines[0][1].split("\t")
    for number, line in lines[1:]:
        if line:
            yield number, _row(header, line.split("\t"))
        elif number < len(lines):
            yield number, "an empty line"


def _read_csv(content: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    reader = csv.reader([line + "\n" for _, line in _lines(content)], strict=True)
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
    for number, line in _lines(content):
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


def _columns(line: str, tabs: bool) -> list[str]:
    # str.split would also part a word at a no-break space or an ideographic one
    return line.split("\t") if tabs else re.split("[ \t]+", line.strip(" \t"))


def _is_comment(line: str, tabs: bool) -> bool:
    if tabs:
        return line.startswith("#") and "\t" not in line
    return line.startswith("# ") and (" = " in line or line.startswith(("# newdoc", "# newpar")))


def _conll_fault(cells: list[str], width: int) -> str:
    if len(cells) != width:
        return f"{len(cells)} columns where the first row has {width}"
    return "an empty word or tag"
