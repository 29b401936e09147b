"""Logging to stderr and to a run's log.txt, and filters for expected notices of libraries.

Standard output is for results: folders of runs, the table of a report.
"""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from crosstune.printable import clean_message

LOG = logging.getLogger("crosstune")


class StderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`, which may have been redirected since."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        print(clean_message(self.format(record)), file=sys.stderr)


TERMINAL = StderrHandler()
TERMINAL.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
NOISY_LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "transformers")
# notices of Lightning and peft about choices that are intended
EXPECTED_WARNINGS = (
    r".*does not have many workers.*",
    r".*It is recommended to use `self.log\(.*sync_dist=True\)`.*",
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*GPU available but not used.*",
    r".*The `srun` command is available on your system but is not used.*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*Experiment logs directory .* exists and is not empty.*",
    r".*Trainer already configured with model summary callbacks.*",
    r".*`is_gradient_checkpointing` is deprecated.*",
    r".*Unsupported layer type .*LayerNorm.*",  # peft, about layers that a method does adapt
    r"The following rank_pattern keys did not match.*",  # peft, about AdaLoRA's pattern
)


def log_to_terminal() -> None:
    """Send log lines to stderr; calling it again has no effect."""
    LOG.addHandler(TERMINAL)
    LOG.setLevel(logging.INFO)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Also send this thread's log lines to a file; other threads may train other runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    thread = threading.get_ident()
    handler.addFilter(lambda record: record.thread == thread)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        handler.close()


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Suppress expected warnings and notices of libraries; errors are still shown."""
    noisy = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for pattern in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=pattern)
        try:
            yield
        finally:
            for logger, level in zip(noisy, levels, strict=True):
                logger.setLevel(level)
