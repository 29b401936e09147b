"""Errors that a user can fix, with the exit code of each.

A message says in one paragraph what was received, what is allowed and where. The command line
prints it without a traceback.
"""

from collections.abc import Sequence
from difflib import get_close_matches


class CrosstuneError(Exception):
    """Base class of errors that are printed without a traceback."""

    exit_code = 1


class ConfigError(CrosstuneError):
    """The command or the configuration is wrong."""

    exit_code = 2
    is_composition = False  # Hydra refuses a sweep with one such run as a whole


class DataError(CrosstuneError):
    """A data file is missing, malformed or does not fit the task; `faults` has every fault.

    >>> str(DataError(["a.tsv:3: 1 column, header has 2", "a.tsv:9: empty text"]))
    'a.tsv:3: 1 column, header has 2; a.tsv:9: empty text'
    """

    max_printed = 5

    def __init__(self, faults: Sequence[str]):
        self.faults = list(faults)
        more = len(self.faults) - self.max_printed
        tail = f"; and {more} more faults" if more > 0 else ""
        super().__init__("; ".join(self.faults[: self.max_printed]) + tail)


class RunError(CrosstuneError):
    """Training, evaluation or writing results failed."""


def suggest(received: str, allowed: Sequence[str]) -> str:
    """Return "Allowed: …", preceded by the most similar name if there is one.

    >>> suggest("lroa", ["full", "lora"])
    'Did you mean lora? Allowed: full, lora.'
    """
    near = get_close_matches(received, allowed, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"{hint}Allowed: {', '.join(sorted(allowed))}."


def one_line(error: BaseException) -> str:
    r"""Return the message of an error without line breaks.

    >>> one_line(ValueError("no such\n  file"))
    'no such file'
    """
    return " ".join(str(error).split())
