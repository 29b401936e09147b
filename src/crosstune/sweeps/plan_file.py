"""A study's plan on disk, `outputs/<experiment>/plan.jsonl`: one line a job, as `sweep.py` made it.

Knows nothing of Hydra: a report of a study that has its plan imports none of it.
"""

import fcntl
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crosstune.config.paths import find_conf
from crosstune.errors import ConfigError, suggest
from crosstune.files import atomic_write
from crosstune.runs.locks import is_locked

PLAN = "plan.jsonl"


def write_plan(folder: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Add lines to the study's plan, each job once, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".plan.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two halves of a study may start side by side
        known = {json.dumps(line["overrides"]): line for line in read_plan(folder)}
        known |= {json.dumps(line["overrides"]): line for line in lines}
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in known.values())
        with atomic_write(folder / PLAN) as partial:
            partial.write_text(text, "utf-8")


def read_plan(folder: Path) -> list[dict[str, Any]]:
    """Read the study's plan; none was written: no lines."""
    path = folder / PLAN
    return (
        [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        if path.is_file()
        else []
    )


def is_recipe(experiment: str) -> bool:
    """Return whether a file in conf/experiment plans the study."""
    return (find_conf() / "experiment" / f"{experiment}.yaml").is_file()


def unknown_study(outputs: Path, experiment: str) -> ConfigError:
    """Return the error about a study with neither a run nor a plan; it names those there are."""
    known = {path.parent.name for path in outputs.glob(f"*/{PLAN}")}
    known |= {path.stem for path in (find_conf() / "experiment").glob("*.yaml")}
    return ConfigError(
        f"experiment={experiment}: no such study. {suggest(experiment, sorted(known))}"
    )


def find_missing(lines: Iterable[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Return the planned runs of a study's folder that left no record and are not at work."""
    missing: list[dict[str, Any]] = []
    seen: set[str] = set()
    for line in lines:
        if run_id := line.get("run_id", ""):
            if run_id in seen or (folder / run_id / "record.json").exists():
                continue  # two commands may ask for the same run
            if is_locked(folder / run_id):
                continue
            seen.add(run_id)
        missing.append(line)
    return missing
