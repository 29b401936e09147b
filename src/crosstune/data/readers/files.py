"""Files to text: UTF-8 unless another encoding is named, gzip allowed, digested.

Every reader of this folder begins here. Nothing is guessed or replaced: a byte that the encoding
does not know is a fault with its line.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

from crosstune.errors import ConfigError, DataError


def read_file(source: str, encoding: str = "utf-8") -> tuple[str, str]:
    """Return a file's text, a byte order mark removed, and the sha256 of its bytes.

    Raises:
        ConfigError: no such encoding.
        DataError: the file cannot be read, or is not in that encoding.
    """
    try:
        "".encode(encoding)
    except LookupError as error:
        raise ConfigError(
            f"data.reader.encoding={encoding}: no such encoding. Examples: utf-8, gb18030, latin-1."
        ) from error
    path = Path(source)
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError([f"{source}: {reason}"]) from error
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        name = "UTF-8" if encoding == "utf-8" else encoding
        raise DataError([f"{source}:{line}: byte 0x{byte:02x} is not {name}"]) from error
    return text, hashlib.sha256(raw).hexdigest()


def lines_of(content: str) -> Iterator[tuple[int, str]]:
    """Yield line numbers from 1 and lines; only line feeds end a line, a final CR is dropped."""
    # str.splitlines also breaks at characters that stand inside texts
    for number, line in enumerate(content.split("\n"), start=1):
        yield number, line.removesuffix("\r")
