"""A study whose process is killed again and again ends as one that never was.

The processes are forked from one that has imported everything, so that fifty starts cost little.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.tiny import tiny_overrides

STUDY = ["-m", "experiment=study", "method=full,lora,adalora", "trainer.max_epochs=3"]
STUDY += ["trainer.log_every_n_steps=1"]
MEASURED = re.compile("seconds|per_second|memory")  # what no two runs have in common
DRIVER = """
import contextlib, json, os, random, signal, sys, time
import crosstune.training.train, crosstune.cli.main, torch
arguments, kills, longest = json.loads(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
dice, died = random.Random(kills), 0

def start():
    child = os.fork()
    if not child:
        sys.argv = ["crosstune", "train", *arguments]
        code = 1
        with contextlib.suppress(BaseException):
            code = crosstune.cli.main.main()
        os._exit(code)
    return child

while died < kills:
    child = start()
    deadline = time.monotonic() + dice.uniform(0.2, longest)
    while time.monotonic() < deadline and not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.005)
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        died += 1
    except (ProcessLookupError, ChildProcessError):
        break  # the study was done before
began = time.monotonic()
code = os.waitstatus_to_exitcode(os.waitpid(start(), 0)[1])
print(died, code, time.monotonic() - began)
"""


def do_study(
    outputs: Path, seeds: str, checkpoint_seconds: int, kills: int = 0, longest: float = 0.0
) -> tuple[int, int, float]:
    """Do the study, killed so many times, each within `longest` seconds.

    Returns how many times it was killed, and the exit code and the seconds of the last start.
    """
    words = [*STUDY, f"seed={seeds}", f"trainer.checkpoint_every_seconds={checkpoint_seconds}"]
    arguments = json.dumps([*tiny_overrides(outputs), *words])
    command = [sys.executable, "-c", DRIVER, arguments, str(kills), str(longest)]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    died, code, seconds = done.stdout.splitlines()[-1].split()
    return int(died), int(code), float(seconds)


def results(outputs: Path) -> dict[str, Any]:
    """Return what the runs of a study have left, but times and places."""
    found: dict[str, Any] = {}
    for path in outputs.glob("study/*/record.json"):
        record = json.loads(path.read_text())
        for name in ("cost", "started", "finished"):
            del record[name]
        del record["config"]["outputs"], record["config"]["trainer"]["checkpoint_every_seconds"]
        files = ["predictions.parquet", "metrics.jsonl"]
        files += [f"model/{f.name}" for f in (path.parent / "model").glob("*.safetensors")]
        contents = {name: (path.parent / name).read_bytes() for name in files}
        found[path.parent.name] = {"record": record, **contents}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "kills", "share"), [("1", 6, 0.4), ("1,2,3,4,5,6,7,8", 50, 0.2)])
def test_a_study_killed_at_random_moments_ends_as_one_that_was_not(
    seeds: str, kills: int, share: float, tmp_path: Path
) -> None:
    died, code, seconds = do_study(tmp_path / "whole", seeds, 3600)
    assert (died, code) == (0, 0)
    died, code, _ = do_study(tmp_path / "killed", seeds, 0, kills, share * seconds)
    assert code == 0
    assert died >= min(kills, 3), "the study was done before it could be killed"
    whole, killed = (results(tmp_path / name) for name in ("whole", "killed"))
    assert len(whole) == 3 * len(seeds.split(","))
    assert killed == whole
    tables = []
    for name in ("whole", "killed"):
        command = [sys.executable, "-m", "crosstune", "report", "experiment=study"]
        subprocess.run([*command, f"outputs={tmp_path / name}"], check=True, capture_output=True)
        (path,) = (tmp_path / name / "study").rglob("table.csv")
        table = pd.read_csv(path)
        tables.append(table[[column for column in table if not MEASURED.search(column)]])
    assert tables[0].equals(tables[1])
