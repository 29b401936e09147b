"""Digests of the files of a finished run, kept in its record, and the check against them.

A flipped bit on a disk gives other predictions or other weights without an error.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crosstune.errors import RunError
from crosstune.files import digest_file

FIELD, OWN = "files_sha256", "record_sha256"
_FILES = ("config.yaml", "task.json", "predictions.parquet")


def digest_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a run that is read later, by its path in the folder."""
    files = [folder / name for name in _FILES] + sorted((folder / "model").rglob("*"))
    return {
        path.relative_to(folder).as_posix(): digest_file(path) for path in files if path.is_file()
    }


def digest_record(record: Mapping[str, Any]) -> str:
    """Return the sha256 of a record's content, its own digest left out."""
    content = {key: value for key, value in record.items() if key != OWN}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def find_damage(
    folder: Path, record: Mapping[str, Any], only: Iterable[str] | None = None
) -> list[str]:
    """Return which files of a run are not as its record says, as clauses.

    `only` names the files to look at, or folders of them; None: all. Records of earlier versions
    have no digests, and so no damage that could be found.
    """
    digests = record.get(FIELD)
    if not isinstance(digests, dict):
        return []
    names = [str(name) for name in digests if only is None or _is_among(str(name), only)]
    faults = []
    for name in names:
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            faults.append(f"{name!a}: no path in the run's folder")
        elif not path.is_file():
            faults.append(f"{name}: missing")
        elif digest_file(path) != digests[name]:
            faults.append(f"{name}: its bytes have changed since it was written")
    return faults


def check_files(folder: Path, record: Mapping[str, Any], *only: str) -> None:
    """Check some files of a run, or files in some folders of it.

    Raises:
        RunError: one is missing, or not as its record says.
    """
    if damage := find_damage(folder, record, only):
        raise RunError(
            f"{folder}: {'; '.join(damage)}. Restore it from a copy, or delete the folder and "
            "repeat the command that trained the run."
        )


def _is_among(name: str, only: Iterable[str]) -> bool:
    return any(name == one or name.startswith(f"{one}/") for one in only)
