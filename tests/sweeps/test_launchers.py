"""Whole sweeps under every launcher, as a user starts them: the same records, however they run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hydra.errors import MissingConfigException

from crosstune.config.compose import compose_run, explain_compose_error
from crosstune.errors import ConfigError
from crosstune.runs.locks import hold_run_lock
from crosstune.training.prepare import prepare
from crosstune.training.results import read_headline
from tests.tiny import tiny_overrides, tiny_run

SLURM = shutil.which("sinfo") and not subprocess.run(["sinfo"], capture_output=True).returncode
NEEDS_SLURM = pytest.mark.skipif(
    not SLURM,
    reason="no SLURM answers: apt-get install slurm-wlm munge; start munged, slurmctld, slurmd",
)
LAUNCHERS = [
    "pool",
    "submitit_local",
    pytest.param("submitit_slurm", marks=NEEDS_SLURM),
]
# the study of 24 runs that every launcher must bring to the same records and table
STUDY = ("method=full,lora,adalora", "seed=1,2,3,4,5,6,7,8")
NO_DROPOUT = [f"+model.config.{name}_dropout_prob=0.0" for name in ("hidden", "attention_probs")]
# SIGINT as a terminal has it, also where the tests run in the background, which ignores it
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
START += "from crosstune.cli.main import main; raise SystemExit(main())"


def start(outputs: Path, *words: str, kind: str = "classification") -> "subprocess.Popen[str]":
    """Start a sweep in the study `s`."""
    overrides = tiny_overrides(outputs, kind, "trainer.max_epochs=1", "experiment=s", *words)
    return subprocess.Popen(
        [sys.executable, "-c", START, "train", "-m", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def sweep(outputs: Path, *words: str, kind: str = "classification") -> "subprocess.Popen[str]":
    """Run a sweep to its end; `args` of what comes back is what it said."""
    driver = start(outputs, *words, kind=kind)
    driver.args = driver.communicate(timeout=1800)
    return driver


def test_a_sweep_in_a_pool_leaves_its_records(tmp_path: Path) -> None:
    done = sweep(tmp_path, "hydra/launcher=pool", "seed=1,2", "trainer.max_steps=2")
    assert done.returncode == 0, done.args
    assert [record["status"] for record in records(tmp_path).values()] == ["finished"] * 2


def records(outputs: Path) -> dict[str, dict]:
    """Return the records of the study by run id."""
    found = [json.loads(path.read_text()) for path in (outputs / "s").glob("*/record.json")]
    return {record["run_id"]: record for record in found}


def results(outputs: Path) -> dict[str, tuple]:
    """Return what a study must come to, whatever ran it: scores, reports and predictions."""
    parts = ("status", "scores", "report", "best_step", "model_sha256", "tokenizer_sha256")
    return {
        run_id: (
            {part: record[part] for part in parts},
            pd.read_parquet(outputs / "s" / run_id / "predictions.parquet").to_dict("list"),
        )
        for run_id, record in records(outputs).items()
    }


def table(outputs: Path) -> list[dict]:
    """Return the cells of the study's table, without what they cost."""
    words = ["report", "experiment=s", f"outputs={outputs}"]
    subprocess.run([sys.executable, "-m", "crosstune", *words], check=True, capture_output=True)
    cells = pd.read_csv(outputs / "s" / "report" / "table.csv", dtype=str, keep_default_na=False)
    costs = [name for name in cells if re.search("bytes|seconds|per_token", name)]
    return cells.drop(columns=costs).to_dict("records")


def wait_for(condition, seconds: float = 300):
    """Wait until a condition holds, and return what it found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    path = Path(f"/proc/{pid}/task")
    return [int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()]


def runs_of(driver: "subprocess.Popen[str]") -> list[int]:
    """Return the processes of a pool's runs: children of the one that forks them."""
    return [run for helper in children(driver.pid) for run in children(helper)]


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the outputs of the study with all its runs in one process."""
    outputs = tmp_path_factory.mktemp("basic")
    assert sweep(outputs, *STUDY).returncode == 0
    return outputs


@pytest.mark.parametrize(
    ("option", "extra"),
    [("hydra/launcher/submitit_slurm", "slurm"), ("hydra/sweeper/optuna", "optuna")],
)
def test_a_plugin_that_is_not_installed_is_named_with_its_extra(option: str, extra: str) -> None:
    told = str(explain_compose_error(MissingConfigException("", option, ["basic", "pool"])))
    assert f"pip install 'crosstune[{extra}]'" in told


def test_a_misspelt_launcher_is_refused_with_those_that_exist() -> None:
    told = str(
        explain_compose_error(MissingConfigException("", "hydra/launcher/poll", ["basic", "pool"]))
    )
    assert "Did you mean pool?" in told


def test_a_strategy_that_would_leave_half_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.strategy=fsdp\. Allowed: auto, ddp\."):
        tiny_run(tmp_path, "classification", "trainer.strategy=fsdp")


def test_the_scan_for_plugins_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'pytorch_lightning', 'pandas'}"
    code = f"import sys, hydra_plugins.crosstune_pool; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_pool_of_no_runs_is_refused(tmp_path: Path) -> None:
    words = ["seed=1,2", "hydra/launcher=pool", "hydra.launcher.jobs=0"]
    done = sweep(tmp_path, *words)
    assert done.returncode == 2
    assert done.args[1] == "crosstune train: hydra.launcher.jobs=0: must be at least 1.\n"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_study_comes_to_the_same_whatever_launches_it(
    launcher: str, in_process: Path, tmp_path: Path
) -> None:
    done = sweep(tmp_path, *STUDY, f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.args[1]
    assert len(results(tmp_path)) == 24
    assert results(tmp_path) == results(in_process)
    assert table(tmp_path) == table(in_process)


@pytest.mark.slow
def test_runs_that_die_or_are_refused_stop_no_other_in_the_pool(tmp_path: Path) -> None:
    words = ("data.language=spanish,es", "seed=1,2", "hydra/launcher=pool", "hydra.launcher.jobs=2")
    driver = start(tmp_path, *words)
    os.kill(wait_for(lambda: runs_of(driver))[0], signal.SIGKILL)
    out, err = driver.communicate(timeout=600)
    assert driver.returncode == 1
    assert "3 of 4 runs failed." in err
    assert len(re.findall(r"run [12]: .*'spanish'", err)) == 2
    assert "its process died: Killed" in err
    by_status = {record["status"]: record for record in records(tmp_path).values()}
    assert set(by_status) == {"finished", "failed"}
    assert by_status["failed"]["error"] == "its process died: Killed"
    assert out.split() == [str(tmp_path / "s" / by_status["finished"]["run_id"])]


@pytest.mark.slow
def test_an_interrupted_pool_leaves_no_process_and_goes_on_by_the_same_command(
    in_process: Path, tmp_path: Path
) -> None:
    words = ("method=lora", "seed=1,2", "hydra/launcher=pool", "hydra.launcher.jobs=2")
    driver = start(tmp_path, *words)
    wait_for(lambda: list((tmp_path / "s").glob("*/log.txt")))
    pids = runs_of(driver)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert "interrupted; the same command goes on from here." in err
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert sweep(tmp_path, *words).returncode == 0
    assert len(results(tmp_path)) == 2
    assert results(tmp_path).items() <= results(in_process).items()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pool", "submitit_local"])
def test_runs_on_one_and_on_two_devices_share_a_sweep_and_give_the_same_scores(
    launcher: str, tmp_path: Path
) -> None:
    # the name keeps the two apart: the number of devices alone makes no other run
    named = ("trainer.devices=1,2", "data.name=on${trainer.devices}")
    common = ("trainer=ddp", "trainer.accelerator=cpu", *NO_DROPOUT, *named)
    done = sweep(tmp_path, *common, f"hydra/launcher={launcher}", kind="tagging")
    assert done.returncode == 0, done.args[1]
    found = {record["data"]: record for record in records(tmp_path).values()}
    assert found["on1"]["scores"] == found["on2"]["scores"]
    assert [found[name]["config"]["trainer"]["devices"] for name in ("on1", "on2")] == [1, 2]


@pytest.mark.slow
def test_an_error_under_submitit_is_one_paragraph_and_the_other_runs_are_done(
    tmp_path: Path,
) -> None:
    done = sweep(tmp_path, "seed=1", "data.language=spanish,es", "hydra/launcher=submitit_local")
    assert done.returncode == 2
    assert re.search(r"^crosstune train: .*'spanish'", done.args[1], re.MULTILINE)
    assert "Traceback" not in done.args[1]
    assert [record["status"] for record in records(tmp_path).values()] == ["finished"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "pool"])
def test_optuna_searches_for_the_best_headline_score(launcher: str, tmp_path: Path) -> None:
    search = (
        "hydra/sweeper=optuna",
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.n_trials=2",
    )
    space = "optimizer.learning_rate=interval(0.0001,0.01)"
    done = sweep(tmp_path, *search, space, f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.args[1]
    best = yaml.safe_load((tmp_path / "s" / "optimization_results.yaml").read_text())
    tried = [read_headline(tmp_path / "s" / run_id) for run_id in records(tmp_path)]
    assert len(tried) == 2
    assert best["best_value"] == max(tried)


@pytest.mark.slow
@NEEDS_SLURM
def test_a_preempted_slurm_job_goes_on_in_its_folder(tmp_path: Path) -> None:
    driver = start(tmp_path, "trainer.max_epochs=40", "seed=7", "hydra/launcher=submitit_slurm")
    wait_for(lambda: any(p.stat().st_size for p in (tmp_path / "s").glob("*/metrics.jsonl")))
    (script,) = (tmp_path / "s" / ".submitit").rglob("*_submitted.pkl")
    job = script.name.removesuffix("_submitted.pkl")
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    shown = ["scontrol", "show", "job", job]

    def requeued() -> bool:
        told = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
        return "Restarts=1" in told and "JobState=PENDING" in told

    wait_for(requeued)
    # SLURM would hold it for two minutes
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
    _, err = driver.communicate(timeout=600)
    assert driver.returncode == 0, err
    assert [record["status"] for record in records(tmp_path).values()] == ["finished"]
    (told,) = (tmp_path / "s").glob("*/log.txt")
    assert "goes on from epoch" in told.read_text("utf-8")


@pytest.mark.slow
def test_a_run_that_another_process_does_is_told_and_fails_no_pool(tmp_path: Path) -> None:
    words = ("seed=1,2", "hydra/launcher=pool", "hydra.launcher.jobs=2")
    overrides = tiny_overrides(tmp_path, "classification", "trainer.max_epochs=1", "experiment=s")
    with hold_run_lock(prepare(compose_run([*overrides, "seed=1"])).folder):
        done = sweep(tmp_path, *words)
    assert done.returncode == 0, done.args[1]
    assert "is being trained by process" in done.args[1]
    assert [record["seed"] for record in records(tmp_path).values()] == [2]
