"""Text files: decoding, lines and blocks, the faults in them, and plain text as rows.

The encoding is UTF-8 unless the configuration names another; gzip is allowed. No byte is guessed
or replaced: one that the encoding does not know is a fault with its line.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crosstune.data.readers.file_kind import check_is_lines, check_is_text
from crosstune.data.splits import Split
from crosstune.errors import ConfigError, DataError
from crosstune.files import read_unpacked

Line = tuple[int, str]  # number from 1, and text without its line end


def read_text(source: str, *, encoding: str = "utf-8") -> Split:
    """Read plain text (gzip allowed), one paragraph a line; blank lines are left out.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    content, digest = read_file(source, encoding)
    check_is_lines(source, content)
    rows = [
        {"id": str(number), "text": line.strip(), "where": f"{source}:{number}"}
        for number, line in iterate_lines(content)
        if line.strip()
    ]
    return Split(rows, {source: digest})


def read_file(source: str, encoding: str = "utf-8") -> tuple[str, str]:
    """Return a file's text without a byte order mark, and the sha256 of its uncompressed bytes.

    Raises:
        ConfigError: no such encoding.
        DataError: the file cannot be read, or is not in that encoding.
    """
    try:
        "".encode(encoding)
    except (LookupError, ValueError) as error:  # UnicodeError: the codec "undefined"
        raise ConfigError(
            f"data.reader.encoding={encoding}: no such encoding. Examples: utf-8, gb18030, latin-1."
        ) from error
    try:
        raw = read_unpacked(Path(source))
    except (OSError, EOFError, zlib.error) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError([f"{source}: {reason}"]) from error
    check_is_text(source, raw, encoding)
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        name = "UTF-8" if encoding == "utf-8" else encoding
        raise DataError([f"{source}:{line}: byte 0x{byte:02x} is not {name}"]) from error
    return text, hashlib.sha256(raw).hexdigest()


def parse_json(source: str, content: str) -> Any:
    """Parse a file that is one JSON value.

    Raises:
        DataError: the JSON is malformed.
    """
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        where = f"{source}:{error.lineno}:{error.colno}"
        raise DataError([f"{where}: malformed JSON ({error.msg})"]) from error
    except (ValueError, RecursionError) as error:  # an integer too long, or nested too deep
        raise DataError([f"{source}: malformed JSON ({error})"]) from error


def has_lone_surrogate(text: str) -> bool:
    """Return whether a text holds half of a character, as JSON can spell it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def iterate_lines(content: str) -> Iterator[Line]:
    """Yield numbered lines; only line feeds end a line, and a final carriage return is dropped."""
    # str.splitlines also breaks at characters that stand inside texts
    for number, line in enumerate(content.split("\n"), start=1):
        yield number, line.removesuffix("\r")


def iterate_blocks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield the runs of lines between blank ones."""
    block: list[Line] = []
    for number, line in [*lines, (0, "")]:
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []


@contextmanager
def collect_faults(faults: list[str], where: str) -> Iterator[None]:
    """Append the error that parsing a row raises to `faults`: a KeyError as a missing key."""
    try:
        yield
    except KeyError as error:
        faults.append(f"{where}: no key {error}")
    except (TypeError, ValueError) as error:
        faults.append(f"{where}: {error}")


def make_split(rows: list[dict[str, Any]], faults: list[str], digests: dict[str, str]) -> Split:
    """Return what a reader returns.

    Raises:
        DataError: there are faults.
    """
    if faults:
        raise DataError(faults)
    return Split(rows, digests)
