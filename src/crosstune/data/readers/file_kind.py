"""Recognises files of another kind by their first bytes, so that none is read as text.

A Git LFS pointer or an HTML page of an error reads like a small text file: without this check it
would be trained on.
"""

import json
import re

from crosstune.errors import DataError

LFS = b"version https://git-lfs.github.com/spec/"
_UNPACK = "unpack it first"
_CONVERT = "save it as TSV, CSV or JSON lines first"
# first bytes -> what the file is, and what to do
_KINDS = (
    (LFS, "a Git LFS pointer and not the file itself", "fetch it with git lfs pull"),
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)", _UNPACK),
    (b"\x1f\x8b", "compressed with gzip", "name it .gz"),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ", "compressed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstandard", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"PAR1", "a Parquet file", "name it .parquet and read it as a table"),
    (b"ARROW1", "an Arrow file", _CONVERT),
    (b"%PDF-", "a PDF document", _CONVERT),
    (b"\xd0\xcf\x11\xe0", "a document of an office program", _CONVERT),
    (b"SQLite format 3\x00", "an SQLite database", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"\x89PNG", "an image", "give a text file"),
    (b"\xff\xd8\xff", "an image", "give a text file"),
    (b"\xff\xfe", "text in UTF-16", "give data.reader.encoding=utf-16"),
    (b"\xfe\xff", "text in UTF-16", "give data.reader.encoding=utf-16"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|\?xml)\b", re.IGNORECASE)


def name_kind(head: bytes) -> tuple[str, str] | None:
    r"""Return what a file is that is no plain text, by its first bytes, and the remedy.

    >>> name_kind(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab")[1]
    'fetch it with git lfs pull'
    >>> name_kind(b"text\tlabel\n") is None
    True
    """
    for signature, kind, remedy in _KINDS:
        if head.startswith(signature):
            return kind, remedy
    if _PICKLE.match(head):
        return "a pickle", _CONVERT
    if markup := _MARKUP.match(head):
        if markup[1].startswith(b"?"):
            return "XML", _CONVERT
        return "an HTML page, as a failed download leaves", "download the data again"
    return None


def check_is_text(source: str, raw: bytes, encoding: str) -> None:
    """Raise DataError if a file, uncompressed, is of a kind that is no text in this encoding."""
    kind = name_kind(raw[:1024])
    if kind and not (kind[0].endswith("UTF-16") and encoding.lower().startswith("utf-16")):
        raise DataError([f"{source}:1: this is {kind[0]}: {kind[1]}"])


def check_is_lines(source: str, content: str) -> None:
    """Raise DataError if text is JSON, or has no line feeds, where lines of text are read."""
    if "\r" in content and "\n" not in content:
        lines = content.count("\r")
        raise DataError(
            [
                f"{source}:1: its {lines} line ends are carriage returns alone, as old programs "
                "wrote them: tr '\\r' '\\n' < IN > OUT makes them line feeds"
            ]
        )
    first = content[:1_000_000].lstrip().partition("\n")[0]
    if not first.startswith(("{", "[")):
        return
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return
    rows = value if isinstance(value, list) else [value]
    if rows and isinstance(rows[0], dict):
        raise DataError(
            [
                f"{source}:1: this is JSON: tables of JSON have one object a line and a name that "
                "ends in .jsonl; SQuAD's JSON is for data=files_extraction"
            ]
        )
