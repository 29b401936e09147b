"""The progress of a study on the terminal: one display for all its runs.

Everything is read from the study's folder, so a study can be watched from another process.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from crosstune.runs.locks import is_locked
from crosstune.runs.plan_file import PlannedRun, read_plan, unknown_study
from crosstune.runs.record import read_record
from crosstune.sweeps.process_pool import print_line

LOG = "sweep.log"  # in the study's folder: what the runs log
_TAIL_BYTES = 65536  # read from the end of metrics.jsonl
_POLL_SECONDS = 1.0


class RunProgress(NamedTuple):
    """How far a run is; empty texts for what it has not logged yet."""

    epoch: str = ""
    step: str = ""
    loss: str = ""
    score: str = ""


class StudyProgress:
    """Counts the runs of a study, and describes those at work."""

    def __init__(self, folder: Path, planned: Sequence[PlannedRun]):
        self.folder = folder
        self.runs = {run["run_id"]: run for run in planned if run.get("run_id")}
        self.total = len(planned)
        self.began = time.monotonic()
        self.finished: set[str] = set()
        self.failed = 0
        self.update()
        self.done_before = self.done

    @property
    def done(self) -> int:
        """The number of runs that have ended."""
        return len(self.finished) + self.failed

    def update(self) -> list[str]:
        """Read which runs have ended; return the ids of those that are running."""
        running, self.failed = [], 0
        for run_id in self.runs.keys() - self.finished:
            folder = self.folder / run_id
            if is_locked(folder):
                running.append(run_id)
            elif (folder / "record.json").is_file():
                if read_record(folder / "record.json")["status"] == "finished":
                    self.finished.add(run_id)
                else:  # it may be tried again
                    self.failed += 1
        return [run_id for run_id in self.runs if run_id in running]

    @property
    def is_done(self) -> bool:
        """Whether every planned run has ended."""
        return self.done == len(self.runs)

    def summarise(self, running: int) -> str:
        """Return how many runs are done, at work and failed, and the time that is left."""
        parts = [f"{self.done} of {self.total} runs done", f"{running} running"]
        parts += [f"{self.failed} failed"] * (self.failed > 0)
        seconds = time.monotonic() - self.began
        parts.append(f"{format_seconds(seconds)} so far")
        if (new := self.done - self.done_before) > 0 and not self.is_done:
            left = seconds / new * (len(self.runs) - self.done)
            parts.append(f"about {format_seconds(left)} left")
        return " · ".join(parts)

    def render(self) -> Group:
        """Return the display: a bar, the summary, and a line for each run at work."""
        running = self.update()
        table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
        for title in ("running", "epoch", "step", "loss", "validation"):
            table.add_column(title, justify="left" if title == "running" else "right")
        for run_id in running:
            progress = read_progress(self.folder / run_id)
            table.add_row(Text(describe_run(self.runs[run_id])), *map(Text, progress))
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=max(1, self.total), completed=self.done, width=40))
        head = Text(f"{self.folder.name}: {self.summarise(len(running))}")
        return Group(head, bar, table) if running else Group(head, bar)


def describe_run(run: PlannedRun) -> str:
    """Return the names of a planned run in one line."""
    names = [str(run.get(key, "?")) for key in ("method", "model", "data", "language")]
    return f"{' · '.join(names)}, seed {run.get('seed', '?')}"


def read_progress(folder: Path) -> RunProgress:
    """Read how far a run is from its metrics.jsonl and config.yaml."""
    lines = list(_read_tail(folder / "metrics.jsonl"))
    if not lines:
        return RunProgress()
    config = _read_config(folder / "config.yaml")
    trainer = config.get("trainer", {})
    headline = config.get("data", {}).get("metric", "")
    losses = [line["train/loss"] for line in lines if "train/loss" in line][-5:]
    scores = [line["validation/headline"] for line in lines if "validation/headline" in line]
    return RunProgress(
        f"{int(lines[-1].get('epoch', 0)) + 1} of {trainer.get('max_epochs', '?')}",
        str(int(lines[-1]["step"]) + 1),
        f"{sum(losses) / len(losses):.3f}" if losses else "",
        f"{headline} {scores[-1]:.3f}" if scores else "",
    )


def format_seconds(seconds: float) -> str:
    """Return a duration as minutes and seconds, or hours and minutes.

    >>> format_seconds(75), format_seconds(3 * 3600 + 120)
    ('1:15 min', '3:02 h')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


@contextmanager
def show_progress(folder: Path, planned: Sequence[PlannedRun]) -> Iterator[Callable[[str], object]]:
    """Show the display while the block runs, and yield a function for the log lines of the runs.

    Without a terminal there is no display, and the lines go to stderr.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield print_line
        return
    progress = StudyProgress(folder, planned)
    folder.mkdir(parents=True, exist_ok=True)
    # to a terminal results are printed above the display, to a file they go as they are
    redirect = {"redirect_stdout": sys.stdout.isatty(), "redirect_stderr": True}
    with (
        (folder / LOG).open("a", encoding="utf-8") as log,
        Live(get_renderable=progress.render, console=console, refresh_per_second=2, **redirect),
    ):
        yield lambda line: print(line, file=log, flush=True)
    console.print(f"The log of all runs: {folder / LOG}", highlight=False, soft_wrap=True)


def watch(outputs: Path, experiment: str) -> None:
    """Show the progress of a study that other processes run, until every planned run has ended.

    Raises:
        ConfigError: the study has no plan.
    """
    folder = outputs / experiment
    if not (planned := read_plan(folder)):
        raise unknown_study(outputs, experiment)
    progress = StudyProgress(folder, planned)
    console = Console()
    with Live(get_renderable=progress.render, console=console, refresh_per_second=2):
        while not progress.is_done:
            time.sleep(_POLL_SECONDS)


def _read_tail(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the last lines of a file of JSON lines; a line that is being written is left out."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return
    for line in lines[size > _TAIL_BYTES : -1]:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}
