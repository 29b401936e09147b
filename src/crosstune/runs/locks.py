"""One process a run: locks that end with whoever holds them, however it ends.

The lock of a run lies beside its folder, in `outputs/<experiment>/.locks/`, so that the folder can
be thrown away under it. Held by `run.train` and by the ranks that it starts; asked by `sweep.py`.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crosstune.errors import RunError


class RunLocked(RunError):
    """Another process does this run: that is no failure, and nothing is done here."""

    exit_code = 0


@contextmanager
def hold_run_lock(folder: Path) -> Iterator[int]:
    """Hold the lock of a run's folder; give its file descriptor.

    Processes that inherit the descriptor hold the lock, too, until the last of them has ended.

    Raises:
        Busy: another process holds it.
    """
    path = _lock_of(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not any(_take(file.fileno(), wait=0.02) for _ in range(10)):  # `is_locked` may be asking
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunLocked(f"{folder} is being trained by {holder}: it is left to that one.")
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield file.fileno()


def is_locked(folder: Path) -> bool:
    """Return whether a process is at work on the run of this folder."""
    path = _lock_of(folder)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return not _take(file.fileno(), wait=0)


def _lock_of(folder: Path) -> Path:
    return folder.parent / ".locks" / folder.name


def _take(descriptor: int, wait: float) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(wait)
        return False
    return True
