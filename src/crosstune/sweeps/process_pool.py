"""Runs the jobs of a sweep in worker processes, and divides CPU cores and GPUs between them.

Workers are forked from a server that has already imported torch. A failed run does not stop the
others, and workers are killed when this process dies.
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
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import suppress
from importlib import import_module
from multiprocessing import connection, forkserver, get_context
from pathlib import Path
from typing import Any, NamedTuple

from crosstune.printable import clean_message

GRACE_SECONDS = 30.0  # between the interrupt and the kill of a run
JOB_MODULE = "crosstune.sweeps.job"  # a child process calls its `main`
PRELOAD_MODULE = "crosstune.sweeps.forkserver_preload"  # defers garbage collection
LATE_IMPORTS = ("pyarrow.pandas_compat", "transformers.optimization")  # imported during a run


class Job(NamedTuple):
    """A run to do: its configuration file and the resources it needs."""

    config: Path
    devices: int
    on_gpu: bool


class JobResult(NamedTuple):
    """The result of a run: its folder and headline score, or an error and its exit code."""

    folder: str = ""
    headline: float = 0.0
    error: str = ""
    exit_code: int = 0


class Resources(NamedTuple):
    """The number of parallel jobs, the threads of each, and a GPU for each parallel job."""

    jobs: int
    threads: int
    gpu_slots: list[str]


def divide_resources(
    requested: int | None,
    count: int,
    cores: int,
    gpus: Sequence[str],
    environment: Mapping[str, str],
) -> Resources:
    """Divide the machine between `count` runs, by default one per GPU or per free core.

    >>> divide_resources(None, 24, 8, [], {})
    Resources(jobs=8, threads=1, gpu_slots=[])
    >>> divide_resources(None, 24, 8, [], {"OMP_NUM_THREADS": "2"})
    Resources(jobs=4, threads=2, gpu_slots=[])
    >>> divide_resources(4, 24, 8, ["0", "1"], {})
    Resources(jobs=4, threads=2, gpu_slots=['0', '1', '0', '1'])
    """
    variable = environment.get("OMP_NUM_THREADS", "")
    threads = int(variable) if variable.isdigit() and int(variable) else None
    jobs = min(requested or len(gpus) or max(1, cores // (threads or 1)), max(1, count))
    rounds = -(-jobs // len(gpus)) if gpus else 0
    return Resources(jobs, threads or max(1, cores // jobs), list(gpus) * rounds)


class ProcessPool:
    """Runs jobs in parallel.

    `on_start` is called with the number of each job that starts, `write_line` with each line that a
    job prints.
    """

    def __init__(
        self,
        resources: Resources,
        on_start: Callable[[int], None],
        write_line: Callable[[str], object] | None = None,
    ):
        self.resources, self.write_line = resources, write_line or print_line
        self.on_start = on_start
        self.free_gpus = Counter(resources.gpu_slots)  # GPU -> free slots
        self.changed = threading.Condition()
        self.running: set[Any] = set()
        self.context = start_forkserver()
        self.stopping = False

    def run(self, jobs: Mapping[int, Job]) -> dict[int, JobResult]:
        """Return the result of every job; print the folder of each that finishes."""
        results: dict[int, JobResult] = {}
        with ThreadPoolExecutor(self.resources.jobs) as threads:
            numbers = {threads.submit(self._run_job, n, job): n for n, job in jobs.items()}
            try:
                for future in as_completed(numbers):
                    results[numbers[future]] = future.result()
                    print_result(numbers[future], future.result())
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                self._stop()
        return results

    def _run_job(self, number: int, job: Job) -> JobResult:
        gpus = self._acquire_gpus(job)
        try:
            if not self.stopping:
                self.on_start(number)
            path = job.config.with_suffix(".result")
            code = self._run_process(number, job, gpus)
            if not path.is_file() and not self.stopping:
                reason = signal.strsignal(-code) if code < 0 else f"exit code {code}"
                self._run_process(number, job, gpus, f"its process died: {reason}")
            if not path.is_file():
                return JobResult(error="stopped", exit_code=130)
            return JobResult(**json.loads(path.read_text("utf-8")))
        finally:
            with self.changed:
                self.free_gpus.update(gpus)
                self.changed.notify_all()

    def _acquire_gpus(self, job: Job) -> list[str]:
        """Wait for as many GPUs as a job asks for, or as many as there are; return them."""
        wanted = min(job.devices, len(self.free_gpus)) if job.on_gpu else 0
        with self.changed:
            self.changed.wait_for(
                lambda: self.stopping or sum(n > 0 for n in self.free_gpus.values()) >= wanted
            )
            gpus = [gpu for gpu, _ in self.free_gpus.most_common(wanted)]
            self.free_gpus.subtract(gpus)
        return gpus

    def _run_process(self, number: int, job: Job, gpus: Sequence[str], *crash: str) -> int:
        """Run the process of a job to its end and return its exit code."""
        threads = max(1, self.resources.threads // job.devices)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        arguments = (job.config, job.config.with_suffix(".result"), *crash)
        # the child reads the end of this pipe when the pool is gone
        alive_reader, alive_writer = self.context.Pipe(duplex=False)
        output_reader, output_writer = self.context.Pipe(duplex=False)
        child = (JOB_MODULE, arguments, os.getcwd(), environment, alive_reader, output_writer)
        with alive_writer, output_reader:
            with self.changed, alive_reader, output_writer:
                if self.stopping:
                    return 130
                process = self.context.Process(target=_run_child, args=child)
                process.start()
                self.running.add(process)
            forwarded = (output_reader.fileno(), f"[{number + 1}] ", self.write_line)
            forwarder = threading.Thread(target=_forward_output, args=forwarded)
            forwarder.start()
            connection.wait([process.sentinel])
            with self.changed:  # starting a process polls all others, so join under the lock
                process.join()
                _kill_group(process)  # its own children may hold its output open
                self.running.remove(process)
            forwarder.join()
            return process.exitcode or 0

    def _stop(self) -> None:
        """Interrupt what still runs; kill it after the grace period or a second interrupt."""
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
    """Return the context whose processes are forked; its server imports in the background."""
    context = get_context("forkserver")
    context.set_forkserver_preload([PRELOAD_MODULE, JOB_MODULE, *LATE_IMPORTS])
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"  # a random.py in the working folder must not hide Python's
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
    return context


def find_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    with ProcessPoolExecutor(1, mp_context=start_forkserver()) as child:  # it has imported torch
        gpus = [str(number) for number in range(child.submit(_count_gpus).result())]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return gpus if visible is None else visible.split(",")[: len(gpus)]


def kill_when_pool_exits() -> None:
    """Kill this process and its children as soon as the pool that started it is gone."""
    while os.read(0, 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def print_line(line: str) -> None:
    """Print a line to stderr at once."""
    print(line, file=sys.stderr, flush=True)


def print_result(number: int, result: JobResult) -> None:
    """Print the folder of a run to stdout, or why it failed to stderr."""
    if result.error:
        print(f"crosstune train: run {number + 1}: {clean_message(result.error)}", file=sys.stderr)
    else:
        print(result.folder, flush=True)


def _run_child(
    module: str,
    arguments: Sequence[Path | str],
    folder: str,
    environment: Mapping[str, str],
    alive: connection.Connection,
    output: connection.Connection,
) -> None:
    """Child entry point: a session, working directory and environment of its own."""
    gc.freeze()  # what came with the fork is never garbage
    gc.enable()
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(alive.fileno(), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(1, 2)
    output.close()
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        stream.reconfigure(line_buffering=True)
    try:
        sys.exit(import_module(module).main(*arguments))
    except KeyboardInterrupt:
        sys.exit(130)


def _count_gpus() -> int:
    return import_module("torch.cuda").device_count()


def _forward_output(source: int, prefix: str, write_line: Callable[[str], object]) -> None:
    """Pass on a child's output by whole lines, so that lines of several children never mix."""
    with open(source, errors="replace", closefd=False) as lines:
        for line in lines:
            write_line(f"{prefix}{line.rstrip()}")


def _kill_group(process: Any) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
