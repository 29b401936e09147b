"""The plan of a study on disk, `outputs/<experiment>/plan.jsonl`: one line per planned run.

`plan.py` makes the lines. This file does not import Hydra, so a report can read a plan without it.
"""

import fcntl
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crosstune.config.paths import find_config_files
from crosstune.errors import ConfigError, one_line, suggest
from crosstune.files import atomic_write, read_regular
from crosstune.runs.locks import is_locked

PLAN = "plan.jsonl"
log = logging.getLogger(__name__)
PlannedRun = dict[str, Any]  # overrides, and names, run_id and error as far as they are known


def write_plan(folder: Path, runs: Sequence[PlannedRun]) -> None:
    """Add runs to the plan of a study; one with the same overrides is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    with _hold_plan_lock(folder):
        plan = {json.dumps(run["overrides"]): run for run in (*read_plan(folder), *runs)}
        _write(folder, plan.values())


@contextmanager
def _hold_plan_lock(folder: Path) -> Iterator[None]:
    """Two halves of a study may start at the same time; without locks they should not."""
    with (folder / ".plan.lock").open("w") as lock:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(folder: Path, runs: Iterable[PlannedRun]) -> None:
    text = "".join(json.dumps(run, ensure_ascii=False) + "\n" for run in runs)
    with atomic_write(folder / PLAN) as partial:
        partial.write_text(text, "utf-8")


def read_plan(folder: Path) -> list[PlannedRun]:
    """Read the plan of a study; it is empty if there is no file.

    A torn line, or one that crosstune did not write, is named in the log and left out.
    """
    path = folder / PLAN
    if not path.is_file():
        return []
    runs: list[PlannedRun] = []
    for number, line in enumerate(read_regular(path).split(b"\n"), start=1):
        if line:
            try:
                runs.append(_check_line(json.loads(line)))
            except (ValueError, RecursionError) as error:
                log.warning("%s:%d: no planned run, left out (%s)", path, number, one_line(error))
    return runs


def _check_line(run: Any) -> PlannedRun:
    """Return a line of a plan, or raise ValueError for one that crosstune does not write."""
    if not isinstance(run, dict):
        raise ValueError(f"a {type(run).__name__}, not an object")
    overrides = run.get("overrides")
    if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
        raise ValueError("overrides is no list of texts")
    for key in ("run_id", "error", "data", "language", "model", "method"):
        if not isinstance(run.get(key, ""), str):
            raise ValueError(f"{key} is no text")
    if (run_id := run.get("run_id", "")) and not re.fullmatch(r"\w+", run_id):
        raise ValueError("run_id is no name of a folder")
    return run


def forget_missing(outputs: Path, experiment: str) -> list[PlannedRun]:
    """Drop the planned runs of a study without a record that are not at work; return them.

    Raises:
        ConfigError: the study has no plan.
    """
    folder = outputs / experiment
    if not (folder / PLAN).is_file():
        raise unknown_study(outputs, experiment)
    with _hold_plan_lock(folder):
        plan = read_plan(folder)
        missing = find_missing(plan, folder)
        ids = {run.get("run_id") for run in missing}
        _write(folder, [run for run in plan if run.get("run_id") not in ids])
    return missing


def is_recipe(experiment: str) -> bool:
    """Return whether a file in conf/experiment defines the study."""
    return experiment in find_config_files("experiment")


def unknown_study(outputs: Path, experiment: str) -> ConfigError:
    """Return the error about a study with neither runs nor a plan; it names the known studies."""
    known = {path.parent.name for path in outputs.glob(f"*/{PLAN}")}
    known |= set(find_config_files("experiment"))
    return ConfigError(
        f"experiment={experiment}: no such study. {suggest(experiment, sorted(known))}"
    )


def find_missing(runs: Iterable[PlannedRun], folder: Path) -> list[PlannedRun]:
    """Return the planned runs that have no record in the study's folder and are not running."""
    missing: list[PlannedRun] = []
    seen: set[str] = set()
    for run in runs:
        if run_id := run.get("run_id", ""):
            if run_id in seen or (folder / run_id / "record.json").exists():
                continue  # different overrides may name the same run
            if is_locked(folder / run_id):
                continue
            seen.add(run_id)
        missing.append(run)
    return missing
