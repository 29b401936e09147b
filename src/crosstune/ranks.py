"""Several devices for one run: one fresh process a rank, watched until the last one ends.

Lightning's own launcher starts the whole command again, which under a sweep mixes jobs and ranks.
Here the run's process trains nothing: it starts a worker for each rank from the run's frozen
config.yaml, waits, and ends all of them as soon as one fails. Called by `run.py`.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from crosstune.errors import RunError

FOREIGN = ("SLURM_", "SUBMITIT_", "OMPI_", "PMI")  # Lightning would take them for its own
STALE = ("LOCAL_RANK", "WORLD_SIZE", "RANK", "NODE_RANK", "GROUP_RANK", "PL_GLOBAL_SEED")
GRACE_SECONDS = 5.0


def fan_out(folder: Path, ranks: int) -> None:
    """Run the worker of every rank on the run in `folder`, until all are done.

    Raises:
        RunError: a rank ended with an error; the others are stopped.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in STALE and not name.startswith(FOREIGN)
    }
    environment |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(ranks),
        "NODE_RANK": "0",
    }
    # ranks that each take all cores slow one another down; on GPUs this leaves enough
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    command = [sys.executable, "-m", "crosstune.worker", str(folder)]
    workers = [
        subprocess.Popen(command, env={**environment, "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]
    try:
        while True:
            codes = [worker.poll() for worker in workers]
            failed = [rank for rank, code in enumerate(codes) if code]
            if failed:
                raise RunError(_why(folder, failed[0], codes[failed[0]]))
            if all(code == 0 for code in codes):
                return
            time.sleep(0.1)
    finally:
        _stop(workers)


def error_file(folder: Path, rank: int) -> Path:
    """Return where a worker leaves the reason of its failure."""
    return folder / f"rank-{rank}.error"


def _why(folder: Path, rank: int, code: int | None) -> str:
    path = error_file(folder, rank)
    said = path.read_text("utf-8") if path.is_file() else f"ended with exit code {code}"
    return f"rank {rank}: {said}"


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        try:
            worker.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
