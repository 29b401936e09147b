"""How long `crosstune train` takes from its start to the end of its first training step.

Watched from outside, so that nothing of the run is changed: its metrics.jsonl gets a line, flushed,
when the first step is done.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pairs import Failed, Sample

PATIENCE_SECONDS = 300.0


def measure_first_step(words: list[str], outputs: Path) -> Sample:
    """Start a run, stop it at its first step, and return what it took so far.

    Raises:
        Failed: the run ended, or took too long, without a step.
    """
    asked = ["trainer.log_every_n_steps=1", "trainer.max_steps=1000"]
    command = [sys.executable, "-m", "crosstune", "train", *words, *asked]
    known = set(_lines(outputs))
    began = time.perf_counter()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}, **quiet)
    while not set(_lines(outputs)) - known:
        if child.poll() is not None or time.perf_counter() - began > PATIENCE_SECONDS:
            child.kill()
            raise Failed(f"no first step: {' '.join(command)}")
        time.sleep(0.002)
    wall = time.perf_counter() - began
    child.kill()
    _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, {})


def _lines(outputs: Path) -> list[Path]:
    return [path for path in outputs.glob("*/*/metrics.jsonl") if path.stat().st_size]
