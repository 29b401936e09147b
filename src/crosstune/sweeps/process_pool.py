"""Runs side by side on one machine: a process each, with its share of cores and GPUs.

A process gets its run as a frozen file and answers with another (`job.py` is what it runs). All are
forked from one that has imported the libraries and done nothing yet, so that a run does not wait
for them. One that fails or dies leaves the others alone; none outlives this process, however that
ends. Called by the launcher `hydra/launcher=pool`; knows nothing of Hydra and of training.
"""

import gc
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from importlib import import_module
from multiprocessing import connection, forkserver, get_context
from pathlib import Path
from typing import Any, NamedTuple

GRACE_SECONDS = 30.0  # for a run that is told to stop: time to leave itself in order
JOB = "crosstune.sweeps.job"  # what a process does is its `main`
UNCOLLECTED = "crosstune.sweeps.forkserver_preload"  # puts the search for garbage off
LATE = ("pyarrow.pandas_compat", "transformers.optimization")  # what a run imports on its way


class Job(NamedTuple):
    """A run to be done: its frozen configuration and what it takes."""

    config: Path
    devices: int
    on_gpu: bool


class JobResult(NamedTuple):
    """What a run came to: its folder and headline score, or an error and its exit code."""

    folder: str = ""
    headline: float = 0.0
    error: str = ""
    exit_code: int = 0


class Resources(NamedTuple):
    """How many runs go side by side, the threads of each, and the places on GPUs."""

    jobs: int
    threads: int
    places: list[str]


def divide_resources(
    asked: int | None, count: int, cores: int, gpus: Sequence[str], environment: Mapping[str, str]
) -> Resources:
    """Return the shares of `count` runs; by default one a GPU, or as many as the cores bear.

    >>> divide_resources(None, 24, 8, [], {})
    Share(jobs=8, threads=1, places=[])
    >>> divide_resources(None, 24, 8, [], {"OMP_NUM_THREADS": "2"})
    Share(jobs=4, threads=2, places=[])
    >>> divide_resources(4, 24, 8, ["0", "1"], {})
    Share(jobs=4, threads=2, places=['0', '1', '0', '1'])
    """
    given = environment.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdigit() and int(given) else None
    jobs = min(asked or len(gpus) or max(1, cores // (threads or 1)), max(1, count))
    rounds = -(-jobs // len(gpus)) if gpus else 0
    return Resources(jobs, threads or max(1, cores // jobs), list(gpus) * rounds)


class ProcessPool:
    """Runs jobs side by side; `tell` hears of each that starts."""

    def __init__(self, share: Resources, tell: Callable[[int], None]):
        self.share = share
        self.tell = tell
        self.free = Counter(share.places)  # GPU -> places left
        self.changed = threading.Condition()
        self.running: set[Any] = set()
        self.context = start_forkserver()
        self.stopping = False

    def run(self, jobs: Mapping[int, Job]) -> dict[int, JobResult]:
        """Return the answer of every job; print the folder of each that is done."""
        answers: dict[int, JobResult] = {}
        with ThreadPoolExecutor(self.share.jobs) as threads:
            started = {threads.submit(self._do, n, job): n for n, job in jobs.items()}
            try:
                for future in as_completed(started):
                    answer = answers[started[future]] = future.result()
                    if answer.error:
                        show_error(started[future], answer.error)
                    else:
                        print(answer.folder, flush=True)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                self._stop()
        return answers

    def _do(self, number: int, job: Job) -> JobResult:
        gpus = self._take(job)
        try:
            if not self.stopping:
                self.tell(number)
            path = job.config.with_suffix(".answer")
            code = self._work(number, job, gpus)
            if not path.is_file() and not self.stopping:
                why = signal.strsignal(-code) if code < 0 else f"exit code {code}"
                self._work(number, job, gpus, f"its process died: {why}")
            said = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            return JobResult(**said or {"error": "stopped", "exit_code": 130})
        finally:
            self._give(gpus)

    def _work(self, number: int, job: Job, gpus: Sequence[str], *died: str) -> int:
        """Run the process of a job to its end and return its exit code."""
        shares = {"OMP_NUM_THREADS": str(max(1, self.share.threads // job.devices))}
        if gpus:
            shares["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        words = (job.config, job.config.with_suffix(".answer"), *died)
        alive, held = self.context.Pipe(duplex=False)  # its end tells the process that we are gone
        said, saying = self.context.Pipe(duplex=False)
        around = (os.getcwd(), {**os.environ, **shares})
        with held, said:
            with self.changed, alive, saying:
                if self.stopping:
                    return 130
                process = self.context.Process(target=_be, args=(JOB, words, around, alive, saying))
                process.start()
                self.running.add(process)
            reader = threading.Thread(target=_pass_on, args=(said.fileno(), f"[{number + 1}] "))
            reader.start()
            connection.wait([process.sentinel])
            with self.changed:  # starting a process asks how all others are
                process.join()
                _kill_group(process)  # what it left behind, which may hold its output open
                self.running.remove(process)
            reader.join()
            return process.exitcode or 0

    def _take(self, job: Job) -> list[str]:
        """Wait for as many GPUs as a job asks for, or all there are; return them."""
        wanted = min(job.devices, len(self.free)) if job.on_gpu else 0
        with self.changed:
            self.changed.wait_for(
                lambda: self.stopping or sum(n > 0 for n in self.free.values()) >= wanted
            )
            gpus = [gpu for gpu, _ in self.free.most_common(wanted)]
            self.free.subtract(gpus)
        return gpus

    def _give(self, gpus: Sequence[str]) -> None:
        with self.changed:
            self.free.update(gpus)
            self.changed.notify_all()

    def _stop(self) -> None:
        """End what still runs: told first, killed when it takes too long or a second time."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
            for process in self.running:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGINT)
        deadline = time.monotonic() + GRACE_SECONDS
        try:
            while self.running and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            with self.changed:
                for process in self.running:
                    _kill_group(process)


def start_forkserver() -> Any:
    """Return what processes come from; it imports the libraries from now on, in the background."""
    context = get_context("forkserver")
    context.set_forkserver_preload([UNCOLLECTED, JOB, *LATE])
    forkserver.ensure_running()
    return context


def find_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    context = start_forkserver()
    said, saying = context.Pipe(duplex=False)
    process = context.Process(target=_count_gpus, args=(saying,))  # torch has been imported there
    process.start()
    saying.close()
    with said:
        every = [str(number) for number in range(said.recv())]
    process.join()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return every if named is None else named.split(",")[: len(every)]


def exit_with_parent() -> None:
    """End this process and all that it started as soon as the pool that started it is gone."""
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def show_error(number: int, error: str) -> None:
    """Print why a run failed."""
    print(f"crosstune train: run {number + 1}: {error}", file=sys.stderr)


def _be(
    job: str,
    words: Sequence[Path | str],
    around: tuple[str, Mapping[str, str]],
    alive: connection.Connection,
    saying: connection.Connection,
) -> None:
    """Be the process of a job: in a session, folder and environment of its own."""
    gc.freeze()  # what came with the fork is never garbage
    gc.enable()
    os.setsid()
    folder, environment = around
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(alive.fileno(), 0)
    os.dup2(saying.fileno(), 1)
    os.dup2(1, 2)
    saying.close()
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        stream.reconfigure(line_buffering=True)
    try:
        sys.exit(import_module(job).main(*words))
    except KeyboardInterrupt:
        sys.exit(130)


def _count_gpus(saying: connection.Connection) -> None:
    saying.send(import_module("torch.cuda").device_count())


def _pass_on(source: int, prefix: str) -> None:
    """Print what a process says, line by line, so that lines of several never mix."""
    with open(source, errors="replace", closefd=False) as lines:
        for line in lines:
            sys.stderr.write(f"{prefix}{line.rstrip()}\n")
            sys.stderr.flush()


def _kill_group(process: Any) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
