"""Sweeps under `hydra/launcher=fused`, as a user starts them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from crosstune.cli.main import main
from crosstune.runs.record import read_record
from tests.sweeps.test_launchers import results, start, sweep, wait_for
from tests.tiny import tiny_overrides

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
FUSED = ("hydra/launcher=fused", "method=lora", "seed=1", "optimizer.learning_rate=0.01,0.02")


def test_a_group_of_no_runs_is_refused(tmp_path: Path) -> None:
    done = sweep(tmp_path, *FUSED, "hydra.launcher.size=0")
    assert done.returncode == 2
    assert done.args[1] == "crosstune train: hydra.launcher.size=0: must be at least 1.\n"


def test_the_scan_for_plugins_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'pytorch_lightning', 'pandas'}"
    code = f"import sys, hydra_plugins.crosstune_fused; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_sweep_trains_together_what_it_can_and_names_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = tiny_overrides(tmp_path, "classification", "experiment=s", "trainer.max_steps=2")
    words = [*FUSED, "method=lora,full", *overrides]
    monkeypatch.setattr(sys, "argv", ["crosstune", "train", "-m", *words])
    assert main() == 0
    said = capsys.readouterr()
    records = [read_record(Path(folder) / "record.json") for folder in said.out.split()]
    assert [record["method"] for record in records] == ["lora", "lora", "full", "full"]
    assert [record.get("fused_with") for record in records] == [1, 1, None, None]
    assert "run 3 is trained alone: method=full leaves nothing frozen" in said.err
    assert "2 runs together: 0 steps joint, 4 alone" in said.err  # they skip their padding


@pytest.mark.slow
def test_runs_that_are_finished_are_found_so(tmp_path: Path) -> None:
    assert sweep(tmp_path, *FUSED).returncode == 0
    before = results(tmp_path)
    done = sweep(tmp_path, *FUSED)
    assert done.returncode == 0
    assert done.args[1].count("is finished already: nothing to train") == 2
    assert results(tmp_path) == before


@pytest.mark.slow
def test_a_failed_run_fails_the_sweep_and_stops_no_other(tmp_path: Path) -> None:
    words = [word.replace("0.02", "1e30") for word in FUSED]
    done = sweep(tmp_path, *words, "trainer.max_epochs=2")
    assert done.returncode == 1
    assert "run 2: the loss is" in done.args[1]
    assert "1 of 2 runs failed." in done.args[1]
    statuses = [read_record(path)["status"] for path in tmp_path.glob("s/*/record.json")]
    assert sorted(statuses) == ["diverged", "finished"]


@pytest.mark.slow
def test_an_interrupted_group_ends_and_goes_on_by_the_same_command(tmp_path: Path) -> None:
    driver = start(tmp_path, *FUSED, "trainer.max_epochs=300")
    wait_for(lambda: len(list((tmp_path / "s").glob("*/metrics.jsonl"))) == 2)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert "interrupted; the same command goes on from here." in err
    assert "Traceback" not in err
    assert not list((tmp_path / "s").glob("*/record.json"))
    assert sweep(tmp_path, *FUSED).returncode == 0


@pytest.mark.slow
def test_each_run_of_a_group_has_a_wandb_run_of_its_own(tmp_path: Path) -> None:
    done = sweep(tmp_path, *FUSED, "logger=wandb")
    assert done.returncode == 0, done.args[1]
    folders = [path.parent for path in tmp_path.glob("s/*/record.json")]
    mirrors = [path for folder in folders for path in folder.glob("wandb/offline-run-*/*.wandb")]
    names = [path.stem.removeprefix("run-") for path in mirrors]
    assert sorted(names) == sorted(folder.name for folder in folders)


@pytest.mark.slow
def test_optuna_searches_with_runs_that_are_trained_together(tmp_path: Path) -> None:
    search = ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize"]
    search += ["hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2"]
    words = [word for word in FUSED if "learning_rate" not in word]
    done = sweep(tmp_path, *search, *words, "optimizer.learning_rate=interval(0.0001,0.01)")
    assert done.returncode == 0, done.args[1]
    assert "2 runs together" in done.args[1]
    best = yaml.safe_load((tmp_path / "s" / "optimization_results.yaml").read_text())
    records = [json.loads(path.read_text()) for path in tmp_path.glob("s/*/record.json")]
    scores = [record["scores"]["validation"]["es"]["accuracy"] for record in records]
    assert best["best_value"] == max(scores)
