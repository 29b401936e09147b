"""Runs side by side: shares of cores and GPUs, and nothing left behind however it ends.

The processes are real; only what they do is a few lines of Python instead of training.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from crosstune.sweeps import process_pool as pool
from crosstune.sweeps.process_pool import Job, JobResult, ProcessPool, Resources, divide_resources

NUMBERS = itertools.count()
WATCHING = "threading.Thread(target=pool.kill_when_pool_exits, daemon=True).start()"


@pytest.fixture
def acting(tmp_path, monkeypatch):
    """Return a function that says in Python what a process does instead of a run."""
    name = f"act_{next(NUMBERS)}"
    monkeypatch.setattr(pool, "JOB_MODULE", name)
    monkeypatch.syspath_prepend(tmp_path)

    def act(*lines):
        imports = "import json, os, pathlib, signal, sys, threading, time\n"
        head = (
            "from crosstune.sweeps import process_pool as pool\ndef main(config, answer, *died):\n"
        )
        told = "say = lambda **what: answer.write_text(json.dumps(what))"
        body = textwrap.indent("\n".join([told, *lines]), "    ")
        (tmp_path / f"{name}.py").write_text(f"{imports}{head}{body}\n")
        return name

    return act


def jobs_in(folder, count, devices=1, on_gpu=False):
    return {n: Job(folder / f"{n}.yaml", devices, on_gpu) for n in range(count)}


def run(jobs, share):
    return ProcessPool(share, lambda number: None).run(jobs)


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    return False


def pids_in(folder, count):
    """Wait until so many processes have said who they are; return their ids."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = [path.read_text() for path in folder.glob("*.pid")]
        if len(found) == count and all(found):
            return [int(pid) for pid in found]
        time.sleep(0.05)
    raise AssertionError(f"fewer than {count} processes")


def is_gone(pid):
    deadline = time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


SAY_PID = "config.with_suffix('.pid').write_text(str(os.getpid()))"


def test_each_job_answers_for_itself(acting, tmp_path, capsys):
    acting("say(folder=config.stem, headline=float(config.stem))")
    answers = run(jobs_in(tmp_path, 3), Resources(2, 1, []))
    assert answers == {n: JobResult(folder=str(n), headline=float(n)) for n in range(3)}
    assert sorted(capsys.readouterr().out.split()) == ["0", "1", "2"]


def test_a_killed_process_is_named_and_stops_no_other(acting, tmp_path, capsys):
    acting(
        "if died: say(error=died[0], exit_code=1)",
        "elif config.stem == '0': os.kill(os.getpid(), signal.SIGKILL)",
        "else: say(folder='done', headline=0.5)",
    )
    answers = run(jobs_in(tmp_path, 3), Resources(1, 1, []))
    assert answers[0] == JobResult(error="its process died: Killed", exit_code=1)
    assert [answers[n].folder for n in (1, 2)] == ["done", "done"]
    assert "crosstune train: run 1: its process died: Killed" in capsys.readouterr().err


def test_a_process_that_leaves_without_an_answer_is_a_failed_run(acting, tmp_path):
    acting("if died: say(error=died[0], exit_code=1)", "sys.exit(3)")
    assert (
        run(jobs_in(tmp_path, 1), Resources(1, 1, []))[0].error == "its process died: exit code 3"
    )


def test_lines_of_several_processes_come_whole_and_marked(acting, tmp_path, capsys):
    acting(
        "for n in range(20):",
        "    for half in ('one ', 'two\\n'):",
        "        sys.stdout.write(half); sys.stdout.flush(); time.sleep(0.001)",
        "say(folder='done')",
    )
    run(jobs_in(tmp_path, 2), Resources(2, 1, []))
    lines = capsys.readouterr().err.splitlines()
    assert sorted(lines) == ["[1] one two"] * 20 + ["[2] one two"] * 20


def test_what_a_run_leaves_running_ends_with_it(acting, tmp_path):
    acting(
        "import subprocess",
        "left = subprocess.Popen(['sleep', '600'])",
        "config.with_suffix('.pid').write_text(str(left.pid))",
        "say(folder='done')",
    )
    before = time.monotonic()
    run(jobs_in(tmp_path, 1), Resources(1, 1, []))
    assert is_gone(pids_in(tmp_path, 1)[0])
    assert time.monotonic() - before < 300, "its open output did not hold the pool up"


def test_an_interrupt_ends_every_process_and_starts_no_further_one(acting, tmp_path, capsys):
    acting(SAY_PID, "time.sleep(600)")
    started = []

    def interrupt():
        pids_in(tmp_path, 2)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            ProcessPool(Resources(2, 1, []), started.append).run(jobs_in(tmp_path, 4))
    finally:
        signal.signal(signal.SIGINT, before)
    assert all(is_gone(pid) for pid in pids_in(tmp_path, 2))
    assert sorted(started) == [0, 1]


def test_a_process_deaf_to_the_interrupt_is_killed(acting, tmp_path, monkeypatch):
    acting("signal.signal(signal.SIGINT, signal.SIG_IGN)", SAY_PID, "time.sleep(600)")
    monkeypatch.setattr(pool, "GRACE_SECONDS", 0.2)
    started = ProcessPool(Resources(1, 1, []), lambda number: None)
    thread = threading.Thread(target=started.run, args=(jobs_in(tmp_path, 1),))
    thread.start()
    (pid,) = pids_in(tmp_path, 1)
    started._stop()
    thread.join(20)
    assert is_gone(pid)


@pytest.mark.parametrize("watching", [True, False])
def test_no_process_outlives_a_killed_pool(acting, tmp_path, watching):
    # without the watch the process stays: what the watch is for
    name = acting(WATCHING if watching else "", SAY_PID, "time.sleep(600)")
    code = f"""
        import sys, pathlib
        from crosstune.sweeps import process_pool as pool
        from crosstune.sweeps.process_pool import Job, ProcessPool, Resources
        pool.JOB_MODULE = {name!r}
        sys.path.insert(0, {str(tmp_path)!r})
        jobs = {{0: Job(pathlib.Path({str(tmp_path)!r}, "0.yaml"), 1, False)}}
        ProcessPool(Resources(1, 1, []), lambda number: None).run(jobs)
    """
    driver = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    (pid,) = pids_in(tmp_path, 1)
    driver.kill()
    driver.wait()
    try:
        if watching:
            assert is_gone(pid)
        else:
            time.sleep(0.5)
            assert alive(pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_no_garbage_is_looked_for_until_a_run_is_forked(acting, tmp_path):
    (tmp_path / "late.py").write_text("import gc\nlooked_for = gc.isenabled()\n")
    name = acting(
        "import gc, late",
        "kept = gc.get_freeze_count() > 1000",
        "say(folder=f'{late.looked_for} {kept} {gc.isenabled()}')",
    )
    code = f"""
        import pathlib
        from crosstune.sweeps import process_pool as pool
        from crosstune.sweeps.process_pool import Job, ProcessPool, Resources
        pool.JOB_MODULE, pool.LATE_IMPORTS = {name!r}, ("late",)
        jobs = {{0: Job(pathlib.Path({str(tmp_path)!r}, "0.yaml"), 1, False)}}
        ProcessPool(Resources(1, 1, []), lambda number: None).run(jobs)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}  # the fork server imports `late` from it
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["False", "True", "True"]


def test_jobs_share_the_threads_and_ranks_those_of_their_job(acting, tmp_path):
    acting("say(folder=os.environ['OMP_NUM_THREADS'])")
    jobs = jobs_in(tmp_path, 1) | {1: Job(tmp_path / "1.yaml", 2, False)}
    answers = run(jobs, Resources(2, 4, []))
    assert [answers[n].folder for n in (0, 1)] == ["4", "2"]


def test_no_gpu_serves_two_jobs_at_once(acting, tmp_path):
    acting(
        "gpus = os.environ['CUDA_VISIBLE_DEVICES'].split(',')",
        "for gpu in gpus: config.with_name(f'gpu-{gpu}').mkdir()",  # fails where it is taken
        "time.sleep(0.1)",
        "for gpu in gpus: config.with_name(f'gpu-{gpu}').rmdir()",
        "say(folder=','.join(gpus))",
    )
    jobs = {n: Job(tmp_path / f"{n}.yaml", 2 if n == 1 else 1, True) for n in range(5)}
    answers = run(jobs, Resources(3, 1, ["4", "7", "GPU-x"]))
    assert {len(set(answers[n].folder.split(","))) for n in (0, 2, 3, 4)} == {1}
    assert len(set(answers[1].folder.split(","))) == 2


def test_a_job_that_asks_for_more_gpus_than_there_are_gets_all_and_is_not_held_up(acting, tmp_path):
    acting("say(folder=os.environ['CUDA_VISIBLE_DEVICES'])")
    answers = run(jobs_in(tmp_path, 1, devices=8, on_gpu=True), Resources(1, 1, ["0", "1"]))
    assert sorted(answers[0].folder) == [",", "0", "1"]


def test_a_share_is_never_nothing():
    assert divide_resources(None, 0, 1, [], {}) == Resources(1, 1, [])
    assert divide_resources(16, 16, 2, [], {}) == Resources(16, 1, [])
    assert divide_resources(None, 3, 64, [], {}) == Resources(3, 21, [])
    assert divide_resources(None, 9, 8, ["0", "1", "2"], {}) == Resources(3, 2, ["0", "1", "2"])
    assert divide_resources(None, 9, 4, [], {"OMP_NUM_THREADS": "8"}) == Resources(1, 8, [])
