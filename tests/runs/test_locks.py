"""Two processes never do the same run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crosstune.runs.locks import RunLocked, hold_run_lock, is_locked
from crosstune.training import train as run_module
from crosstune.training.train import train
from tests.tiny import tiny_run

HOLDER = """
import sys, time, pathlib
from crosstune.runs.locks import hold_run_lock
with hold_run_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Return a process that holds the lock of `tmp_path/study/run`."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "study" / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_run_that_another_process_does_is_left_to_it(holder, tmp_path: Path) -> None:
    with (
        pytest.raises(RunLocked, match=f"is being trained by process {holder.pid}: "),
        hold_run_lock(tmp_path / "study" / "run"),
    ):
        pass


def test_a_lock_ends_with_its_process(holder, tmp_path: Path) -> None:
    folder = tmp_path / "study" / "run"
    assert is_locked(folder)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not is_locked(folder)
    with hold_run_lock(folder):
        assert is_locked(folder)


def test_a_process_that_inherits_a_lock_holds_it_on(tmp_path: Path) -> None:
    with hold_run_lock(tmp_path / "run") as lock:
        child = subprocess.Popen(["sleep", "600"], pass_fds=(lock,))
    assert is_locked(tmp_path / "run")
    child.kill()
    child.wait()
    assert not is_locked(tmp_path / "run")


def test_a_run_without_a_lock_is_not_held(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "run")


def test_asking_for_a_moment_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    with hold_run_lock(tmp_path / "run") as lock:
        child = subprocess.Popen(["sleep", "0.05"], pass_fds=(lock,))
    begin = time.monotonic()
    with hold_run_lock(tmp_path / "run"):
        assert time.monotonic() - begin < 5
    child.wait()


def test_what_another_process_trains_is_not_touched(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "classification")
    folder = run_module.prepare(run).folder
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("{}\n")
    with hold_run_lock(folder), pytest.raises(RunLocked):
        train(run)
    assert [path.name for path in folder.iterdir()] == ["metrics.jsonl"]
    assert RunLocked("").exit_code == 0
