"""One run of a sweep whose failure is a result too, and the entry point of the pool's workers."""

import json
import os
import threading
import traceback
from pathlib import Path

import torch

from crosstune.config.compose import read_config
from crosstune.config.schema import Run
from crosstune.errors import CrosstuneError, RunError
from crosstune.files import atomic_write
from crosstune.logs import log_to_terminal
from crosstune.runs.record import read_record, utc_now, write_record
from crosstune.sweeps.process_pool import JobResult, kill_when_pool_exits
from crosstune.training.lightning_module import LossStrategy
from crosstune.training.prepare import prepare
from crosstune.training.results import read_headline, run_facts
from crosstune.training.train import train


def record_crash(run: Run, reason: str) -> None:
    """Write a failed record for a run whose process died, unless the run wrote a record."""
    prepared = prepare(run)
    if read_record(prepared.folder / "record.json")["status"] != "unreadable":
        return
    prepared.folder.mkdir(parents=True, exist_ok=True)
    facts = run_facts(prepared, utc_now())
    write_record(prepared.folder, {**facts, "status": "failed", "error": reason})


def run_and_catch(
    run: Run, crash_reason: str = "", *, loss_strategy: LossStrategy | None = None
) -> JobResult:
    """Train the run, or record that it crashed; a failure is a result too."""
    try:
        if crash_reason:
            record_crash(run, crash_reason)
            raise RunError(crash_reason)
        folder = train(run, loss_strategy)
        return JobResult(str(folder), read_headline(folder))
    except CrosstuneError as error:
        return JobResult(error=str(error), exit_code=error.exit_code)
    except Exception as error:  # any failure is a result of the sweep
        traceback.print_exc()
        return JobResult(error=f"{type(error).__name__}: {error}", exit_code=1)


def main(config: Path, target: Path, *crash_reason: str) -> int:
    """Train the run of a configuration file, write its result as JSON, return the exit code.

    With a third argument, record that the run died for that reason instead of training it.
    """
    threading.Thread(target=kill_when_pool_exits, daemon=True).start()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # set after the import of torch
    log_to_terminal()
    result = run_and_catch(read_config(config), *crash_reason)
    with atomic_write(target) as partial:
        partial.write_text(json.dumps(result._asdict()), "utf-8")
    return result.exit_code
