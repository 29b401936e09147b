"""Several devices for one run: one fresh process a rank, watched until the last one ends.

Lightning's own launcher starts the whole command again, which under a sweep mixes jobs and ranks.
Here the run's process trains nothing: it starts a worker for each rank from the run's frozen
config.yaml, waits, and ends all of them as soon as one fails, dies or does nothing any more. None
of them outlives it. Called by `run.py`; `worker.py` is what it starts.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crosstune.errors import RunError

WORKER = "crosstune.training.worker"
FOREIGN = ("SLURM_", "SUBMITIT_", "OMPI_", "PMI")  # Lightning would take them for its own
STALE = ("LOCAL_RANK", "WORLD_SIZE", "RANK", "NODE_RANK", "GROUP_RANK", "PL_GLOBAL_SEED")
GRACE_SECONDS = 5.0
IDLE_SECONDS = 40.0  # with hardly any work, after which a rank counts as hanging
IDLE_SHARE = 0.03  # of a core: what threads that only look around may take
SHOW_STACK = signal.SIGUSR1  # a worker answers with where it is
# where a rank waits for the others: an all-reduce, or a backward pass with one inside
WAITING = ("/torch/distributed/", "/torch/autograd/graph.py")
PR_SET_PDEATHSIG = 1  # man 2 prctl


class RankError(RunError):
    """A rank failed, died or hung; the others were stopped."""

    def __init__(self, message: str, diverged: bool = False):
        super().__init__(message)
        self.diverged = diverged


def launch_ranks(folder: Path, ranks: int, lock: int) -> None:
    """Run the worker of every rank on the run in `folder`, until all are done.

    The workers inherit the descriptor of the run's lock, so that it is free only without them.

    Raises:
        RankError: a rank ended with an error or does nothing any more; the others are stopped.
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
    command = [sys.executable, "-m", WORKER, str(folder), str(os.getpid())]
    for rank in range(ranks):
        error_file(folder, rank).unlink(missing_ok=True)
    workers = [
        subprocess.Popen(command, env={**environment, "LOCAL_RANK": str(rank)}, pass_fds=(lock,))
        for rank in range(ranks)
    ]
    try:
        _watch(folder, workers)
    finally:
        _stop(workers)
        for rank in range(ranks):
            stack_file(folder, rank).unlink(missing_ok=True)


def error_file(folder: Path, rank: int) -> Path:
    """Return where a worker leaves the reason of its failure."""
    return folder / f"rank-{rank}.error"


def stack_file(folder: Path, rank: int) -> Path:
    """Return where a worker shows its stack when asked."""
    return folder / f"rank-{rank}.stack"


def exit_with_parent(parent: int) -> None:
    """Let the kernel end this process as soon as the one that started it is gone.

    However that ends: a process that is killed can stop nobody itself.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux alone has it
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it had gone before the kernel was told


def _watch(folder: Path, workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Return once all workers are done.

    Raises:
        RankError: one is not going to be.
    """
    looks = [IdleDetector(worker.pid) for worker in workers]
    while True:
        codes = [worker.poll() for worker in workers]
        if all(code == 0 for code in codes):
            return
        if any(codes):
            raise _first_failure(folder, codes)
        idle = [rank for rank, look in enumerate(looks) if codes[rank] is None and look.is_idle()]
        if idle and (hanging := _find_hanging(folder, workers, idle)):
            rank, where = hanging
            raise RankError(f"rank {rank}: hangs, without work for {IDLE_SECONDS:.0f} s{where}")
        time.sleep(0.1)


class IdleDetector:
    """Looks at the processor time of a process now and then."""

    def __init__(self, pid: int):
        self.stat = Path(f"/proc/{pid}/stat")
        self.since, self.work = time.monotonic(), 0.0

    def is_idle(self) -> bool:
        """Return whether it has hardly worked for `IDLE_SECONDS`, and did not wait to."""
        try:
            state, *fields = self.stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            return False
        now, work = time.monotonic(), sum(map(int, fields[10:12])) / os.sysconf("SC_CLK_TCK")
        # one that runs may be short of processors, one in D waits for a disk
        if state in "RD" or work - self.work > IDLE_SHARE * IDLE_SECONDS:
            self.since, self.work = now, work
        return now - self.since > IDLE_SECONDS


def _find_hanging(
    folder: Path, workers: Sequence[subprocess.Popen[bytes]], idle: Sequence[int]
) -> tuple[int, str] | None:
    """Return the first idle rank that waits for no other one, and where it is."""
    files = {rank: stack_file(folder, rank) for rank in idle}
    before = {rank: path.stat().st_size if path.is_file() else 0 for rank, path in files.items()}
    for rank in idle:
        workers[rank].send_signal(SHOW_STACK)
    time.sleep(1.0)
    for rank, path in files.items():
        shown = path.read_text("utf-8")[before[rank] :] if path.is_file() else ""
        innermost = next((line for line in shown.splitlines() if line.startswith("  File ")), "")
        if not any(place in innermost for place in WAITING):
            return rank, f", in {innermost.strip()}" if innermost else ", and does not answer"
    return None


def _first_failure(folder: Path, codes: Sequence[int | None]) -> RankError:
    """Return why the run ended: by divergence, by a rank that was killed, by the first error.

    The other ranks fail, too, once one is gone.
    """
    time.sleep(0.5)  # two may fail at once, and the second knows why
    reasons: list[tuple[int, float, int, str]] = []
    for rank, code in enumerate(codes):
        if error := read_error(folder, rank):
            reasons.append((0 if error["diverged"] else 2, error["time"], rank, error["said"]))
        elif code is not None and code < 0:
            by = signal.Signals(-code)
            order = 1 if by is signal.SIGKILL else 3
            reasons.append((order, 0.0, rank, f"was killed by {by.name}"))
        elif code:
            reasons.append((4, 0.0, rank, f"ended with exit code {code}"))
    order, _, rank, said = min(reasons)
    return RankError(f"rank {rank}: {said}", diverged=order == 0)


def write_error(folder: Path, rank: int, said: str, diverged: bool) -> None:
    """Write why a rank failed."""
    facts = {"said": said, "diverged": diverged, "time": time.time()}
    error_file(folder, rank).write_text(json.dumps(facts), "utf-8")


def read_error(folder: Path, rank: int) -> dict[str, Any] | None:
    """Read why a rank failed; it has not said so: None."""
    try:
        return json.loads(error_file(folder, rank).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
            worker.send_signal(signal.SIGCONT)  # one that was stopped must first go on to end
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
