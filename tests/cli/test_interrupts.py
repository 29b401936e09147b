"""How a command ends that is told to end, or whose output nobody reads."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny import tiny_overrides

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(*words: str, **streams: object) -> "subprocess.Popen[str]":
    """Start a command in a session of its own."""
    options: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    command = [sys.executable, "-m", "crosstune", *words]
    return subprocess.Popen(command, text=True, env=ENVIRONMENT, start_new_session=True, **options)


def wait_for(happened: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def has_steps(outputs: Path) -> bool:
    logs = list(outputs.glob("*/*/metrics.jsonl"))
    return any(path.stat().st_size > 0 for path in logs)


def processes_of(outputs: Path) -> list[str]:
    """Return the processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(outputs).encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


LONG = ("trainer.max_epochs=400", "trainer.log_every_n_steps=1")


def test_sigterm_ends_training_with_143_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = ["train", *tiny_overrides(tmp_path, "classification", *LONG)]
    process = start(*words)
    wait_for(lambda: has_steps(tmp_path))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert out == ""
    assert err.splitlines()[-1] == (
        "crosstune train: interrupted; the same command goes on from here."
    )
    assert not list(tmp_path.glob("*/*/record.json"))
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("hydra/launcher=pool",), ()], ids=["pool", "in_process"])
def test_sigterm_ends_a_sweep_with_143_and_leaves_no_process(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    overrides = tiny_overrides(tmp_path, "classification", *LONG, "seed=1,2", *words)
    process = start("train", "-m", *overrides)
    wait_for(lambda: has_steps(tmp_path))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "interrupted; the same command goes on from here." in err
    wait_for(lambda: not processes_of(tmp_path), 10)


def test_training_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    words = tiny_overrides(tmp_path, "classification", "trainer.max_epochs=1", "seed=1,2")
    reader, writer = os.pipe()
    os.close(reader)
    process = start("train", "-m", *words, stdout=writer, stderr=writer)
    os.close(writer)
    assert process.wait(timeout=120) == 0
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/record.json")]
    assert [record["status"] for record in records] == ["finished"] * 2


def test_training_goes_on_when_the_disk_of_its_log_is_full(tmp_path: Path) -> None:
    words = tiny_overrides(tmp_path, "classification", "trainer.max_epochs=1")
    with open("/dev/full", "w") as full:
        process = start("train", *words, stdout=full, stderr=full)
        assert process.wait(timeout=120) == 0
    assert len(list(tmp_path.glob("*/*/record.json"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "words",
    [("train",), ("train", "trainer.devices=2", "trainer.accelerator=cpu"), ("tune", "trials=2")],
    ids=["run", "ranks", "tune"],
)
def test_sigterm_at_any_moment_loses_nothing(
    tmp_path: Path, words: tuple[str, ...], seed: int
) -> None:
    verb, *more = words
    overrides = tiny_overrides(tmp_path, "classification", "trainer.max_epochs=3", *more)
    process = start(verb, *overrides)
    time.sleep(random.Random(seed).uniform(0.3, 15))  # noqa: S311
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (143, 0), err
    assert "Traceback" not in err
    wait_for(lambda: not processes_of(tmp_path), 10)
    again = start(verb, *overrides)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/record.json")]
    assert {record["status"] for record in records} == {"finished"}
