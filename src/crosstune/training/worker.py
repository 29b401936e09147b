"""One rank of a run on several devices: `python -m crosstune.training.worker FOLDER`.

Started by `ranks.fan_out` with the rank in the environment. Reads the run's frozen config.yaml,
does the same work as a run on one device, and leaves the reason if it fails.
"""

import faulthandler
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
from crosstune.training.failures import explain_failure
from crosstune.training.lightning_module import Diverged
from crosstune.training.prepare import prepare
from crosstune.training.train import fit_and_record


def main(folder: Path) -> int:
    """Do the work of this rank and return its exit code."""
    rank = int(os.environ["LOCAL_RANK"])
    if rank == 0:
        log_to_terminal()
    run = read_config(folder / "config.yaml")
    try:
        with log_to_file(folder / f"log-{rank}.txt" if rank else folder / "log.txt"):
            fit_and_record(prepare(run))
        if distributed.is_initialized():
            distributed.barrier()
            distributed.destroy_process_group()
    except Exception as error:  # whatever it is, the run must learn of it
        told = explain_failure(error, run)
        named = isinstance(told, CrosstuneError)
        said = str(told) if named else f"{type(told).__name__}: {told}"
        write_error(folder, rank, said, isinstance(told, Diverged))
        if not named:
            traceback.print_exc()
        sys.stderr.flush()
        # the others may wait for this rank: to end in good order would be to wait for them
        os._exit(told.exit_code if isinstance(told, CrosstuneError) else 1)
    return 0


if __name__ == "__main__":
    exit_with_parent(int(sys.argv[2]))
    # a scheduler that preempts signals every process: the one that started the ranks answers it
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    FOLDER = Path(sys.argv[1])
    with stack_file(FOLDER, int(os.environ["LOCAL_RANK"])).open("w", encoding="utf-8") as shown:
        faulthandler.register(SHOW_STACK, file=shown, all_threads=False)
        CODE = main(FOLDER)
    sys.exit(CODE)
