"""One rank of a run on several devices: `python -m crosstune.worker FOLDER`.

Started by `ranks.fan_out` with the rank in the environment. Reads the run's frozen config.yaml,
does the same work as a run on one device, and leaves the reason if it fails.
"""

import os
import sys
import traceback
from pathlib import Path

from torch import distributed

from crosstune.config import read_run
from crosstune.errors import CrosstuneError
from crosstune.prepare import prepare
from crosstune.ranks import error_file
from crosstune.run import work
from crosstune.telling import tell_file, tell_terminal


def main(folder: Path) -> int:
    """Do the work of this rank and return its exit code."""
    rank = int(os.environ["LOCAL_RANK"])
    if rank == 0:
        tell_terminal()
    try:
        with tell_file(folder / f"log-{rank}.txt" if rank else folder / "log.txt"):
            work(prepare(read_run(folder / "config.yaml")))
        if distributed.is_initialized():
            distributed.barrier()
            distributed.destroy_process_group()
    except CrosstuneError as error:
        error_file(folder, rank).write_text(str(error), "utf-8")
        return error.exit_code
    except Exception as error:  # whatever it is, the run must learn of it
        error_file(folder, rank).write_text(f"{type(error).__name__}: {error}", "utf-8")
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
