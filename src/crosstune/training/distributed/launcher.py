"""Launches one worker process per rank of a run, and watches them.

Lightning's own launcher repeats the whole command, which in a sweep mixes jobs and ranks. Here the
run's process trains nothing: it starts the workers from the run's config.yaml, waits, and stops all
of them once one fails, dies or hangs. No worker outlives it.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crosstune.errors import RunError

WORKER = "crosstune.training.worker"
SCHEDULER_PREFIXES = ("SLURM_", "SUBMITIT_", "OMPI_", "PMI")  # Lightning would use them
RANK_VARIABLES = ("LOCAL_RANK", "WORLD_SIZE", "RANK", "NODE_RANK", "GROUP_RANK", "PL_GLOBAL_SEED")
GRACE_SECONDS = 5.0
IDLE_SECONDS = 40.0  # almost without work, after which a rank is taken to hang
IDLE_SHARE = 0.03  # of a core: polling threads may use it
SHOW_STACK = signal.SIGUSR1  # makes a worker write its stack
# files of a rank that waits for the others: in an all-reduce, or in a backward pass around one
WAITING_FILES = ("/torch/distributed/", "/torch/autograd/graph.py")
PR_SET_PDEATHSIG = 1  # man 2 prctl


class RankError(RunError):
    """A rank failed, died or hung; the others were stopped."""

    def __init__(self, message: str, diverged: bool = False):
        super().__init__(message)
        self.diverged = diverged


def launch_ranks(folder: Path, ranks: int, lock: int, checks: Sequence[Any] = ()) -> None:
    """Run the worker of every rank on the run in `folder` until all have ended.

    The workers inherit the descriptor of the run's lock, which is held as long as one of them
    lives, and get the findings of `prepare`, which need not be computed again.

    Raises:
        RankError: a rank failed or hangs; the others are stopped.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in RANK_VARIABLES and not name.startswith(SCHEDULER_PREFIXES)
    }
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "MASTER_ADDR": "127.0.0.1",
        "WORLD_SIZE": str(ranks),
        "NODE_RANK": "0",
    }
    # ranks that each use all cores slow each other down
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks)))
    arguments = [str(folder), str(os.getpid()), json.dumps(checks)]
    command = [sys.executable, "-P", "-m", WORKER, *arguments]
    for rank in range(ranks):
        error_file(folder, rank).unlink(missing_ok=True)
    with _reserve_port() as port:
        environment["MASTER_PORT"] = str(port)
        workers = [
            subprocess.Popen(
                command, env={**environment, "LOCAL_RANK": str(rank)}, pass_fds=(lock,)
            )
            for rank in range(ranks)
        ]
        try:
            _watch(folder, workers)
        finally:
            _stop(workers)
            for rank in range(ranks):
                stack_file(folder, rank).unlink(missing_ok=True)


def error_file(folder: Path, rank: int) -> Path:
    """Return the file in which a worker writes why it failed."""
    return folder / f"rank-{rank}.error"


def stack_file(folder: Path, rank: int) -> Path:
    """Return the file in which a worker writes its stack on SHOW_STACK."""
    return folder / f"rank-{rank}.stack"


def exit_with_parent(parent: int) -> None:
    """Make the kernel kill this process once its parent has ended, even if that was killed."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # only on Linux
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent ended before the call


def _watch(folder: Path, workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Return once all workers have succeeded.

    Raises:
        RankError: a worker failed or hangs.
    """
    detectors = [IdleDetector(worker.pid) for worker in workers]
    while True:
        codes = [worker.poll() for worker in workers]
        if all(code == 0 for code in codes):
            return
        if any(codes):
            raise _first_failure(folder, codes)
        idle = [
            rank
            for rank, detector in enumerate(detectors)
            if codes[rank] is None and detector.is_idle()
        ]
        if idle and (hanging := _find_hanging(folder, workers, idle)):
            rank, where = hanging
            raise RankError(f"rank {rank}: hangs, without work for {IDLE_SECONDS:.0f} s{where}")
        time.sleep(0.1)


class IdleDetector:
    """Watches the CPU time of a process."""

    def __init__(self, pid: int):
        self.stat = Path(f"/proc/{pid}/stat")
        self.since, self.cpu_seconds = time.monotonic(), 0.0

    def is_idle(self) -> bool:
        """Return whether the process has used almost no CPU for `IDLE_SECONDS`."""
        try:
            state, *fields = self.stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            return False
        now, seconds = time.monotonic(), sum(map(int, fields[10:12])) / os.sysconf("SC_CLK_TCK")
        # in state R a process may wait for a CPU, in D for a disk
        if state in "RD" or seconds - self.cpu_seconds > IDLE_SHARE * IDLE_SECONDS:
            self.since, self.cpu_seconds = now, seconds
        return now - self.since > IDLE_SECONDS


def _find_hanging(
    folder: Path, workers: Sequence[subprocess.Popen[bytes]], idle: Sequence[int]
) -> tuple[int, str] | None:
    """Return the first idle rank that does not wait for another one, and the line it is at."""
    files = {rank: stack_file(folder, rank) for rank in idle}
    sizes = {rank: path.stat().st_size if path.is_file() else 0 for rank, path in files.items()}
    for rank in idle:
        workers[rank].send_signal(SHOW_STACK)
    time.sleep(1.0)
    for rank, path in files.items():
        stack = path.read_text("utf-8")[sizes[rank] :] if path.is_file() else ""
        innermost = next((line for line in stack.splitlines() if line.startswith("  File ")), "")
        if not any(file in innermost for file in WAITING_FILES):
            return rank, f", in {innermost.strip()}" if innermost else ", and does not answer"
    return None


def _first_failure(folder: Path, codes: Sequence[int | None]) -> RankError:
    """Return the cause of the end: a divergence, else a killed rank, else the first error.

    Once one rank is gone, the others fail too.
    """
    time.sleep(0.5)  # two may fail at once, and the second may write the cause
    reasons: list[tuple[int, float, int, str]] = []
    for rank, code in enumerate(codes):
        if error := read_error(folder, rank):
            reasons.append((0 if error["diverged"] else 2, error["time"], rank, error["message"]))
        elif code is not None and code < 0:
            killer = signal.Signals(-code)
            order = 1 if killer is signal.SIGKILL else 3
            reasons.append((order, 0.0, rank, f"was killed by {killer.name}"))
        elif code:
            reasons.append((4, 0.0, rank, f"ended with exit code {code}"))
    order, _, rank, message = min(reasons)
    return RankError(f"rank {rank}: {message}", diverged=order == 0)


def write_error(folder: Path, rank: int, message: str, diverged: bool) -> None:
    """Write why a rank failed."""
    error = {"message": message, "diverged": diverged, "time": time.time()}
    error_file(folder, rank).write_text(json.dumps(error), "utf-8")


def read_error(folder: Path, rank: int) -> dict[str, Any] | None:
    """Read why a rank failed; None if it wrote nothing."""
    try:
        return json.loads(error_file(folder, rank).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
            worker.send_signal(signal.SIGCONT)  # a stopped process must continue to end
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        try:
            worker.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


@contextmanager
def _reserve_port() -> Iterator[int]:
    """Yield a free port that no other run gets; with SO_REUSEADDR, rank 0 can listen on it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
