"""File locks, so that one process at a time trains a run; the system frees them when it ends.

The lock file is beside the run's folder, in `outputs/<experiment>/.locks/`, so that the folder can
be deleted while the lock is held.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crosstune.errors import RunError


class RunLocked(RunError):
    """Another process trains this run; this is not a failure."""

    exit_code = 0


@contextmanager
def hold_run_lock(folder: Path, lock: bool = True) -> Iterator[int]:
    """Hold the lock of a run's folder and yield its file descriptor; `lock=False` only opens it.

    Processes that inherit the descriptor hold the lock as well, until the last of them ends.

    Raises:
        RunLocked: another process holds it.
        RunError: the file system has no locks.
    """
    path = _lock_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            # `is_locked` of another process may hold it for a moment
            locked = not lock or any(_try_lock(file.fileno(), wait=0.02) for _ in range(10))
        except OSError as error:
            raise RunError(
                f"{path}: this file system has no locks ({error.strerror}). Give lock=false where "
                "no other process works on the study, or outputs=DIR on another file system."
            ) from error
        if not locked:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunLocked(f"{folder} is being trained by {holder}: nothing to do here.")
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield file.fileno()


def is_locked(folder: Path) -> bool:
    """Return whether a process is training the run of this folder."""
    path = _lock_path(folder)
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return not _try_lock(file.fileno(), wait=0)
    except OSError:  # without locks nobody knows
        return False


def _lock_path(folder: Path) -> Path:
    return folder.parent / ".locks" / folder.name


def _try_lock(descriptor: int, wait: float) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(wait)
        return False
    return True
