"""One run of a sweep: its score, and how a process of its own does it.

`main` is what a process of `pool.py` does: the run of a frozen configuration, answered with a file.
With a third word it trains nothing: it records that the run died of that.
"""

import json
import os
import threading
import traceback
from pathlib import Path
from typing import Any

import torch

from crosstune.config.compose import read_config
from crosstune.config.schema import Run
from crosstune.errors import CrosstuneError, RunError
from crosstune.files import atomic_write
from crosstune.logs import log_to_terminal
from crosstune.runs.record import read_record, utc_now, write_record
from crosstune.sweeps.process_pool import exit_with_parent
from crosstune.training.lightning_module import LossStrategy
from crosstune.training.prepare import prepare
from crosstune.training.results import run_facts
from crosstune.training.train import train


def read_headline(folder: Path) -> float:
    """Read a run's score: the mean of its headline metric over the languages trained on."""
    record = read_record(folder / "record.json")
    scores = record["scores"]["validation"]
    data = record["config"]["data"]
    trained = [data["language"], *data["further_languages"]]
    metric = record["headline"]["metric"]
    return sum(float(scores[language][metric]) for language in trained) / len(trained)


def run_job(run: Run, loss_strategy: LossStrategy | None = None) -> tuple[Path, float]:
    """Do a run, or find it finished; return its folder and its score."""
    folder = train(run, loss_strategy)
    return folder, read_headline(folder)


def record_crash(run: Run, why: str) -> None:
    """Leave a failed record of a run whose process died, unless it left one itself."""
    prepared = prepare(run)
    if read_record(prepared.folder / "record.json")["status"] != "unreadable":
        return
    prepared.folder.mkdir(parents=True, exist_ok=True)
    facts = run_facts(prepared, utc_now())
    write_record(prepared.folder, {**facts, "status": "failed", "error": why})


def run_isolated(
    run: Run, died: str = "", *, loss_strategy: LossStrategy | None = None
) -> dict[str, Any]:
    """Do the run, or record what it died of; return its folder and score, or what went wrong."""
    try:
        if died:
            record_crash(run, died)
            raise RunError(died)
        folder, headline = run_job(run, loss_strategy)
        return {"folder": str(folder), "headline": headline}
    except CrosstuneError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except Exception as error:  # whatever it is, the sweep must learn of it
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "exit_code": 1}


def main(config: Path, target: Path, *died: str) -> int:
    """Answer for the run of a frozen configuration and return the exit code."""
    threading.Thread(target=exit_with_parent, daemon=True).start()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # it was imported before that was set
    log_to_terminal()
    said = run_isolated(read_config(config), *died)
    with atomic_write(target) as partial:
        partial.write_text(json.dumps(said), "utf-8")
    return int(said.get("exit_code", 0))
