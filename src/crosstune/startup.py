"""The process of a command: its end by a signal, its output streams, and fast imports.

Almost no object created by importing torch and transformers, or by reading records, becomes
garbage; searching them for it took an eighth of a command's start.
"""

import gc
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typing_extensions import override


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM, and ends as it would after Ctrl-C."""


def end_on_sigterm() -> None:
    """Let SIGTERM raise `Terminated`, so that the process ends in order and says so.

    Lightning would ignore it, or end the process with exit code 0.
    """

    def end(number: int, frame: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)


def protect_streams(*names: str) -> None:
    """Let writing to these streams of `sys` never fail: a reader may close a pipe, a disk fill.

    What nobody can read is dropped, and the work goes on.
    """
    for name in names:
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            raw = _LenientFile(stream.fileno(), "w", closefd=False)
            options: dict[str, Any] = {"encoding": stream.encoding, "errors": stream.errors}
            lines = stream.line_buffering or name == "stderr"
            protected = io.TextIOWrapper(io.BufferedWriter(raw), **options, line_buffering=lines)
            setattr(sys, name, protected)


class _LenientFile(io.FileIO):
    @override
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, self.fileno())
            os.close(sink)
            return len(data)


@contextmanager
def defer_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, and exempt the objects created meanwhile from it for good."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
