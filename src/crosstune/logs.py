"""What a run tells while it works: log lines on the terminal's stderr and in the run's log.txt.

Standard output is kept for results: the folders of runs, the table of a report.
"""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = logging.getLogger("crosstune")


class StderrHandler(logging.Handler):
    """Writes to whatever stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        print(self.format(record), file=sys.stderr)


TERMINAL = StderrHandler()
TERMINAL.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
NOISY_LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "transformers")
# what Lightning and peft say of choices that we make on purpose
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
    r".*Unsupported layer type .*LayerNorm.*",  # peft, of layers that a method does adapt
    r"The following rank_pattern keys did not match.*",  # peft, of AdaLoRA's pattern
)


def log_to_terminal() -> None:
    """Send log lines to stderr; a second call changes nothing."""
    LOG.addHandler(TERMINAL)
    LOG.setLevel(logging.INFO)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Send the log lines of this thread to a file too: others may be at other runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    mine = threading.get_ident()
    handler.addFilter(lambda record: record.thread == mine)
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
    """Silence the notices of libraries about choices that are meant; errors still show."""
    noisy = [logging.getLogger(name) for name in NOISY_LOGGERS]
    before = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for pattern in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=pattern)
        try:
            yield
        finally:
            for logger, level in zip(noisy, before, strict=True):
                logger.setLevel(level)
