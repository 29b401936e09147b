"""Runs a command on hostile files, and says what they must never reach."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.cli.test_main import Done, crosstune

SECONDS = 20  # no file may keep a command longer
MARKER = "marker"  # what the code in a hostile file would create in the working folder
TOUCH = f"touch {MARKER}"


class TooSlow(Exception):
    """A command was kept longer than `SECONDS`."""


def attack(folder: Path, *arguments: str) -> Done:
    """Run a command in a folder; return what it left, and assert that it ended cleanly."""
    with _limit_time():
        done = crosstune(*arguments, cwd=folder)
    assert not list(folder.rglob(MARKER)), "code of the file was run"
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert not set("\x1b\x07\x9b\u202e") & set(done.stdout + done.stderr), "control characters"
    assert done.returncode in (0, 1, 2)
    return done


@contextlib.contextmanager
def _limit_time() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Touch:
    """What a pickle of it does when it is loaded: create the marker."""

    def __reduce__(self) -> tuple:
        """Return the call that loading makes."""
        return os.system, (TOUCH,)
