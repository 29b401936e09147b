"""Reading and writing `record.json`, the one file that says what a run was and what came out.

Also collects the facts about the environment that belong in it.
"""

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crosstune.files import atomic_write, read_regular
from crosstune.runs.integrity import OWN, digest_record

SCHEMA = 1
PACKAGES = (
    "crosstune",
    "torch",
    "pytorch-lightning",
    "transformers",
    "tokenizers",
    "peft",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "numpy",
)


def read_record(path: Path) -> dict[str, Any]:
    """Read a record; status "unreadable" and an error if it is no JSON object, or was changed.

    Half of a surrogate pair, which cannot be encoded as UTF-8, becomes a question mark.
    """
    try:
        text = read_regular(path).decode("utf-8")
        record = json.loads(text)
        has_digest = isinstance(record, dict) and OWN in record
        changed = has_digest and record[OWN] != digest_record(record)
        if "\\u" in text:
            record = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        return {"status": "unreadable", "error": f"{type(error).__name__}: {error}"}
    except RecursionError:
        return {"status": "unreadable", "error": "it is nested too deeply"}
    if not isinstance(record, dict):
        error = f"it holds a {type(record).__name__}, not an object"
        return {"status": "unreadable", "error": error}
    if changed:
        error = f"its content has changed since it was written ({OWN} does not fit)"
        return record | {"status": "unreadable", "error": error}
    if not isinstance(record.get("status"), str):
        return record | {"status": "unreadable", "error": "it has no status"}
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `record.json` atomically, with a digest of its own content as the last field."""
    content = json.loads(json.dumps({"schema": SCHEMA, **record}, allow_nan=False))
    content[OWN] = digest_record(content)
    with atomic_write(folder / "record.json") as partial:
        text = json.dumps(content, ensure_ascii=False, indent=1)
        partial.write_text(text + "\n", "utf-8")


def utc_now() -> str:
    """Return the time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_environment(threads: int) -> dict[str, Any]:
    """Return versions of packages and Python, platform, threads and the git commit."""
    environment: dict[str, Any] = {name: version(name) for name in PACKAGES}
    environment["python"] = platform.python_version()
    environment["platform"] = f"{platform.system()} {platform.machine()}"
    environment["threads"] = threads
    commit = _git("rev-parse", "HEAD")
    if commit is not None:
        environment["git_commit"] = commit
        environment["git_dirty"] = bool(_git("status", "--porcelain", "--untracked-files=no"))
    return environment


def _git(*arguments: str) -> str | None:
    try:
        process = subprocess.run(
            ["git", *arguments],  # noqa: S607 - the git on the user's path
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
