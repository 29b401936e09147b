"""Atomic writes of files and folders, safe when several processes write the same; strict YAML."""

import errno
import gzip
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml

from crosstune.errors import ConfigError, one_line

DIGESTS = ".sha256"  # of a cached folder; no suffix that counts as a file of a checkpoint
MAX_BYTES = 2**31  # of a file that is read as a whole; rows take many times as much memory
MAX_VALUES, MAX_DEPTH = 100_000, 100  # of a configuration file
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is five times as fast


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` once it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_read_umask())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` and rename it; an existing folder is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_read_umask())
        apply_umask(partial)
        if not path.is_dir():
            try:
                partial.rename(path)
            except OSError:
                if not path.is_dir():  # else another process wrote the same content first
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_digests(folder: Path) -> None:
    """Write the sha256 of every file of a cached folder beside them, for `is_intact`."""
    (folder / DIGESTS).write_text(json.dumps(_digest_files(folder)))


def is_intact(folder: Path) -> bool:
    """Return whether a cached folder is there as it was written; a damaged one is removed."""
    if not folder.is_dir():
        return False
    try:
        written = json.loads((folder / DIGESTS).read_text())
    except FileNotFoundError:
        return True  # an earlier version wrote it
    except (OSError, ValueError):
        written = None
    if written == _digest_files(folder):
        return True
    logging.getLogger(__name__).warning("%s was damaged on disk: it is made again", folder)
    shutil.rmtree(folder)
    return False


def _digest_files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): digest_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != DIGESTS
    }


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: it is missing, holds more than `limit` bytes, or is a pipe or a device, whose
            content may never end.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"over {limit:,} bytes", str(path))
    return path.read_bytes()


def read_unpacked(path: Path) -> bytes:
    """Return the content of a file, unpacked if its name ends in .gz.

    Raises:
        OSError, EOFError, zlib.error: as `read_regular` and `unpack_gzip`.
    """
    content = read_regular(path)
    return unpack_gzip(content) if path.suffix == ".gz" else content


def unpack_gzip(content: bytes, limit: int = MAX_BYTES) -> bytes:
    """Return what gzip packed.

    Raises:
        OSError, EOFError, zlib.error: it is no whole gzip file, or unpacks to over `limit` bytes.
    """
    with gzip.open(BytesIO(content)) as file:
        unpacked = file.read(limit + 1)
    if len(unpacked) > limit:
        raise OSError(errno.EFBIG, f"over {limit:,} bytes when unpacked")
    return unpacked


def apply_umask(folder: Path) -> None:
    """Give the files below a folder the usual permissions; safetensors makes them private."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~_read_umask())


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        ConfigError: it is unreadable, not UTF-8 or malformed, or gives a key twice.
    """
    raw = b""
    try:
        raw = read_regular(path)
        text = raw.decode("utf-8-sig")
        _check_depth(text, path)
        loader = _YAML_LOADER(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_repeated_keys(loader, node, path, set())
        if _count_values(node, {}) > MAX_VALUES:
            raise ConfigError(f"{path}: over {MAX_VALUES:,} values, counted where aliases repeat.")
        return loader.construct_document(node)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8. Save the file as UTF-8: "
            "if it is Latin-1, with iconv -f latin1 -t utf-8."
        ) from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = f"{type(error).__name__}: {error.context or ''} {error.problem}"
        raise ConfigError(f"{path}{line}: {reason}.") from error
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {one_line(error)}") from error


def _check_depth(text: str, path: Path) -> None:
    depth = 0
    for event in yaml.parse(text, _YAML_LOADER):  # libyaml builds nodes by recursion, and crashes
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1
            raise ConfigError(f"{path}:{line}: values are nested over {MAX_DEPTH} deep.")


def _check_repeated_keys(loader: Any, node: Any, path: Path, seen: set[int]) -> None:
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_repeated_keys(loader, item, path, seen)
        return
    lines: dict[Any, int] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            name, line = loader.construct_object(key), key.start_mark.line + 1
            if name in lines:
                raise ConfigError(
                    f"{path}:{line}: the key {name!r} is given twice, first in line {lines[name]}. "
                    "Keep one of them."
                )
            lines[name] = line
        _check_repeated_keys(loader, value, path, seen)


def _count_values(node: Any, counts: dict[int, int]) -> int:
    """Return how many values a node has once its aliases are written out."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counts:
        counts[id(node)] = MAX_VALUES + 1  # of a node that holds itself
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        counts[id(node)] = 1 + sum(_count_values(part, counts) for part in parts)
    return counts[id(node)]


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
