"""Commands timed as whole processes, in turn, and what their ratios are.

The machine's speed drifts and others may use it, so contenders run A B C, A B C …, and only ratios
within a round are compared. Imports nothing heavy: a child's peak memory as the kernel counts it
is never below what its parent held when it was started. Called by every part of `bench.py`.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Command = Sequence[str | Path]


class Sample(NamedTuple):
    """One command, run once."""

    wall_seconds: float
    cpu_seconds: float  # user and system, of the process and of all that it waited for
    peak_bytes: int  # resident set of its largest process
    said: dict[str, Any]  # the JSON object in the last line of its standard output, if there is one


class Spread(NamedTuple):
    """The middle of several figures, and how far they lie apart."""

    median: float
    low: float
    high: float


class Failed(Exception):
    """A command that was to be timed ended with an error."""


def run_command(command: Command) -> Sample:
    """Run a command to its end and return what it took.

    Raises:
        Failed: its exit code is not 0; the message holds the end of its standard error.
    """
    words = [str(word) for word in command]
    # threads that wait sleep, for every contender alike: spinning would count as work
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "true"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        child = subprocess.Popen(words, stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            err.seek(0)
            tail = err.read().decode("utf-8", "replace")[-2000:]
            raise Failed(f"exit code {child.returncode}: {' '.join(words)}\n{tail}")
        out.seek(0)
        said = _last_object(out.read().decode("utf-8", "replace"))
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, said)


def run_script(name: str, *arguments: str | Path) -> Sample:
    """Run a script of this folder with this Python."""
    return run_command([sys.executable, Path(__file__).parent / name, *arguments])


def _last_object(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def spread(figures: Sequence[float]) -> Spread:
    """Return the median, the smallest and the largest.

    >>> spread([3.0, 1.0, 2.0])
    Spread(median=2.0, low=1.0, high=3.0)
    """
    return Spread(statistics.median(figures), min(figures), max(figures))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return ours over theirs, round by round: below 1, ours takes less.

    The median of the ratios, not the ratio of the medians: a slow minute of the machine strikes
    both halves of a pair.

    >>> ratios([1.0, 10.0, 3.0], [2.0, 20.0, 3.0])
    Spread(median=0.5, low=0.5, high=1.0)
    """
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def singles(found: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return every single sample, as JSON takes it."""
    return {name: [sample._asdict() for sample in samples] for name, samples in found.items()}


def middle(samples: list[Sample], field: str) -> float:
    """Return the median of what the samples cost."""
    return spread([getattr(sample, field) for sample in samples]).median


def ratio_of(ours: list[Sample], theirs: list[Sample], field: str) -> Spread:
    """Return the ratio of two costs, round by round."""
    return ratios([getattr(s, field) for s in ours], [getattr(s, field) for s in theirs])


def order(names: Sequence[str], turn: int) -> list[str]:
    """Return the contenders of a round, every second round backwards.

    A drift within the round then strikes each as often early as late.

    >>> order(["a", "b", "c"], 0), order(["a", "b", "c"], 1)
    (['a', 'b', 'c'], ['c', 'b', 'a'])
    """
    return list(names) if turn % 2 == 0 else list(reversed(names))


def show_ratio(found: Spread) -> str:
    """Return a ratio with its spread.

    >>> show_ratio(Spread(0.5, 0.45, 0.61))
    '0.50 (0.45–0.61)'
    """
    return f"{found.median:.2f} ({found.low:.2f}–{found.high:.2f})"


def show_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table; what a row lacks is a dash.

    >>> print(show_table(["a", "b"], [{"a": 1.25}]))
    | a | b |
    | --- | ---: |
    | 1.25 | – |
    """
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[_show(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _show(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
