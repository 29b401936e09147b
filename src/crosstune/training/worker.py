"""One rank of a run on several devices: `python -m crosstune.training.worker FOLDER PARENT CHECKS`.

The rank is in the environment. It reads the run's config.yaml, does the same work as a run on one
device, and writes the reason if it fails.
"""

import faulthandler
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from torch import distributed

from crosstune.config.compose import read_config
from crosstune.errors import CrosstuneError
from crosstune.logs import log_to_file, log_to_terminal
from crosstune.training.distributed.launcher import (
    SHOW_STACK,
    exit_with_parent,
    stack_file,
    write_error,
)
from crosstune.training.failures import Diverged, explain_failure
from crosstune.training.prepare import PrepareFindings, prepare_rank
from crosstune.training.train import fit_and_record


def main(folder: Path, checks: PrepareFindings) -> int:
    """Do the work of this rank and return its exit code."""
    rank = int(os.environ["LOCAL_RANK"])
    if rank == 0:
        log_to_terminal()
    run = read_config(folder / "config.yaml")
    try:
        with log_to_file(folder / f"log-{rank}.txt" if rank else folder / "log.txt"):
            fit_and_record(prepare_rank(run, checks))
        if distributed.is_initialized():
            distributed.barrier()
            distributed.destroy_process_group()
    except Exception as error:  # the process that started the ranks reports any error
        explained = explain_failure(error, run)
        is_ours = isinstance(explained, CrosstuneError)
        message = str(explained) if is_ours else f"{type(explained).__name__}: {explained}"
        write_error(folder, rank, message, isinstance(explained, Diverged))
        if not is_ours:
            traceback.print_exc()
        sys.stderr.flush()
        # the other ranks may wait for this one, and a regular exit would wait for them
        os._exit(explained.exit_code if isinstance(explained, CrosstuneError) else 1)
    return 0


if __name__ == "__main__":
    exit_with_parent(int(sys.argv[2]))
    # a scheduler that preempts signals every process; only the one that started the ranks reacts
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    FOLDER = Path(sys.argv[1])
    with stack_file(FOLDER, int(os.environ["LOCAL_RANK"])).open("w", encoding="utf-8") as stack:
        faulthandler.register(SHOW_STACK, file=stack, all_threads=False)
        CODE = main(FOLDER, PrepareFindings(*json.loads(sys.argv[3])))
    sys.exit(CODE)
