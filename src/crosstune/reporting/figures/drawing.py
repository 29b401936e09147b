"""What a drawn figure is, and the process that draws a report's figures while the rest is written.

Importing matplotlib and drawing take as long as all the rest of a report. `report.py` asks for the
figures; only the second process imports what draws them, `gallery.py`.
"""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

INK = "#24292f"  # text and axes; a page may replace it to suit a dark background
_GALLERY = "crosstune.reporting.figures.draw_all"


@dataclass(frozen=True)
class Drawing:
    """One figure in two formats; `cut` says what was left out, and is empty if nothing was."""

    svg: str
    png: bytes
    cut: str


@dataclass(frozen=True)
class Drawings:
    """The figures of a report; None stands for what a study does not have."""

    scores: Drawing
    pareto: Drawing | None
    pareto_memory: Drawing | None
    pareto_time: Drawing | None
    curves: Drawing | None


@contextmanager
def drawing_beside() -> Iterator[Callable[..., Future[Drawings]]]:
    """Give what draws the figures in a second process, which gets ready meanwhile.

    It takes what `gallery.draw` takes. Whoever asks for its result gets `BrokenExecutor` where the
    process was killed.
    """
    with ProcessPoolExecutor(1, initializer=_leave_interrupts) as pool:
        pool.submit(_call, "get_ready")
        yield partial(pool.submit, _call, "draw")


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends both


def _call(name: str, *args: Any) -> Any:
    return getattr(import_module(_GALLERY), name)(*args)
