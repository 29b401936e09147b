"""Errors of the user's making: one clear paragraph each, with the exit code it ends in.

Every message says what was received, what is allowed, and where. `cli.py` prints the message
alone; `--debug` shows the traceback.
"""

from collections.abc import Sequence
from difflib import get_close_matches


class CrosstuneError(Exception):
    """Base of the errors that are shown as one paragraph."""

    exit_code = 1


class ConfigError(CrosstuneError):
    """The command or the configuration is wrong."""

    exit_code = 2


class DataError(CrosstuneError):
    """A data file is missing, malformed or does not fit the task; holds every fault found.

    >>> str(DataError(["a.tsv:3: 1 column, header has 2", "a.tsv:9: empty text"]))
    'a.tsv:3: 1 column, header has 2; a.tsv:9: empty text'
    """

    shown = 5

    def __init__(self, faults: Sequence[str]):
        self.faults = list(faults)
        more = len(self.faults) - self.shown
        tail = f"; and {more} more faults" if more > 0 else ""
        super().__init__("; ".join(self.faults[: self.shown]) + tail)


class RunError(CrosstuneError):
    """The work itself failed: training, evaluation or writing its results."""


def suggest(received: str, allowed: Sequence[str]) -> str:
    """Return "Allowed: …", with the nearest name first when one is near.

    >>> suggest("lroa", ["full", "lora"])
    'Did you mean lora? Allowed: full, lora.'
    """
    near = get_close_matches(received, allowed, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"{hint}Allowed: {', '.join(sorted(allowed))}."
