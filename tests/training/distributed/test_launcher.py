"""Several processes for one run: the same scores as one process, and no rank left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from safetensors.torch import load_file

from crosstune.config.schema import Run
from crosstune.errors import RunError
from crosstune.logs import silence_libraries
from crosstune.models.load import load_model, load_tokenizer
from crosstune.training.datamodule import FineTuningData
from crosstune.training.distributed import launcher as ranks
from crosstune.training.lightning_module import FineTuningModule
from crosstune.training.prepare import prepare
from crosstune.training.train import build_trainer, train
from tests.tiny import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")


NO_DROPOUT = [f"+model.config.{name}_dropout_prob=0.0" for name in ("hidden", "attention_probs")]
# 40 rows in batches of 6: the last batch has 4
WORDS = (*NO_DROPOUT, "trainer.accelerator=cpu", "data.batch_size=6")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """Return a run on two ranks and its folder."""
    words = ("trainer=ddp", "logger.tracker=wandb", *WORDS)
    run = tiny_run(tmp_path_factory.mktemp("two"), "tagging", *words)
    return run, train(run)


def test_two_ranks_have_one_mirror_that_of_rank_zero(trained: tuple[Run, Path]) -> None:
    run, folder = trained
    mirrors = list(Path(run.outputs).rglob("offline-run-*"))
    assert [mirror.name.rpartition("-")[2] for mirror in mirrors] == [folder.name]
    assert mirrors[0].is_relative_to(folder)


def test_two_ranks_give_the_scores_of_one_process_with_the_same_weights(
    trained: tuple[Run, Path], tmp_path: Path
) -> None:
    run, folder = trained
    record = json.loads((folder / "record.json").read_text())
    prepared = prepare(run)
    texts, content = prepared.tokenizer_texts()
    tokenizer = load_tokenizer(run.model, texts, content, tmp_path / ".cache")
    loaded = load_model(run.model, prepared.task, tokenizer, [])
    loaded.model.load_state_dict(load_file(folder / "model" / "model.safetensors"))
    data = FineTuningData(
        prepared.splits, prepared.task, tokenizer, run.data, 1, tmp_path / ".cache"
    )
    alone = FineTuningModule(loaded.model, prepared.task, data, run)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with silence_libraries():
        trainer.test(alone, data, verbose=False)
    assert len(prepared.splits["test"]["zh"].rows) % 2 == 1
    assert alone.results["test"]["zh"].scores == record["scores"]["test"]["zh"]
    table = pd.read_parquet(folder / "predictions.parquet")
    assert [list(p) for p in table["prediction"]] == [
        p.prediction for p in alone.gather_predictions()["zh"]
    ]


def test_two_ranks_train_as_one_process_does(trained: tuple[Run, Path], tmp_path: Path) -> None:
    _, two = trained
    one = train(tiny_run(tmp_path, "tagging", *WORDS))
    assert one.name == two.name, "the number of devices is no part of a run's identity"
    left, right = (load_file(f / "model" / "model.safetensors") for f in (one, two))
    assert all(torch.allclose(left[name], right[name], atol=2e-5) for name in left)


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_ranks_do_not_wait_for_each_other_at_every_forward_pass(
    strategy: str, tmp_path: Path
) -> None:
    words = ("trainer.accelerator=cpu", "trainer.devices=2", f"trainer.strategy={strategy}")
    trainer = build_trainer(tiny_run(tmp_path, "tagging", *words), tmp_path, [], [])
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy._ddp_kwargs == {"forward_sync_buffers": False}


@pytest.mark.slow
def test_a_rank_outlives_the_signal_of_a_scheduler_that_preempts(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").symlink_to("/dev/stdin")  # reading it waits for us
    words = [sys.executable, "-m", ranks.WORKER, str(tmp_path), str(os.getpid())]
    environment = {**os.environ, "LOCAL_RANK": "0"}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE) as worker:
        stack = ranks.stack_file(tmp_path, 0)
        deadline = time.monotonic() + 120
        while not stack.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        worker.send_signal(signal.SIGUSR2)
        worker.communicate(b"", timeout=120)
    assert worker.returncode > 0, "it ended by its own word"


def test_a_rank_that_fails_ends_the_run_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "crosstune_rank.py"
    script.write_text(
        "import os, sys, time, pathlib\n"
        "folder = pathlib.Path(sys.argv[-1])\n"
        "rank = os.environ['LOCAL_RANK']\n"
        "(folder / f'pid-{rank}').write_text(str(os.getpid()))\n"
        "sys.exit(7) if rank == '1' else time.sleep(600)\n"
    )
    launcher = tmp_path / "python"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$4"\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(ranks.sys, "executable", str(launcher))
    with (
        (tmp_path / "lock").open("w") as lock,
        pytest.raises(RunError, match="rank 1: ended with exit code 7"),
    ):
        ranks.launch_ranks(tmp_path, 2, lock.fileno())
    sleeper = tmp_path / "pid-0"
    if sleeper.exists():  # it may have been stopped before it wrote
        assert not Path(f"/proc/{sleeper.read_text()}").exists()


WORKER = """
import faulthandler, importlib.util, os, pathlib, sys, time
folder, rank = pathlib.Path(sys.argv[1]), os.environ["LOCAL_RANK"]
(folder / f"pid-{rank}").write_text(str(os.getpid()))
stack = (folder / f"rank-{rank}.stack").open("w")
faulthandler.register(10, file=stack, all_threads=False)
if rank == "0":  # waits for the other, as in a collective
    spec = importlib.util.spec_from_file_location("wait", folder / "torch/distributed/wait.py")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
time.sleep(600)
"""


@pytest.fixture
def two_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let two scripts stand for the workers: one waits for the other, which sleeps."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    waiting = tmp_path / "torch" / "distributed"
    waiting.mkdir(parents=True)
    (waiting / "wait.py").write_text("import time\ntime.sleep(600)\n")
    launcher = tmp_path / "python"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$4" "$5"\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(ranks.sys, "executable", str(launcher))
    return tmp_path


def alive(folder: Path) -> list[str]:
    return [p.name for p in folder.glob("pid-*") if Path(f"/proc/{p.read_text()}").exists()]


def test_a_rank_that_sleeps_ends_the_run_and_is_named(
    two_workers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "IDLE_SECONDS", 1.0)
    with (two_workers / "lock").open("w") as lock, pytest.raises(RunError) as error:
        ranks.launch_ranks(two_workers, 2, lock.fileno())
    assert "rank 1: hangs, without work for 1 s, in File" in str(error.value)
    assert "worker.py" in str(error.value)
    assert alive(two_workers) == []


def test_a_rank_that_works_is_not_idle_and_one_that_sleeps_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert ranks.IDLE_SECONDS + ranks.GRACE_SECONDS < 60, "a run ends within a minute"
    monkeypatch.setattr(ranks, "IDLE_SECONDS", 1.0)
    found = []
    for word in ("while True: pass", "import time; time.sleep(600)"):
        with subprocess.Popen([sys.executable, "-c", word]) as process:
            look = ranks.IdleDetector(process.pid)
            for _ in range(20):
                time.sleep(0.1)
                idle = look.is_idle()
            found.append(idle)
            process.kill()
    assert found == [False, True]


def test_a_rank_that_is_killed_is_named_and_not_the_one_that_missed_it(tmp_path: Path) -> None:
    ranks.write_error(tmp_path, 0, "connection closed by peer", diverged=False)
    error = ranks._first_failure(tmp_path, [1, -9])
    assert str(error) == "rank 1: was killed by SIGKILL"


def test_divergence_comes_before_what_follows_from_it(tmp_path: Path) -> None:
    ranks.write_error(tmp_path, 0, "connection closed by peer", diverged=False)
    ranks.write_error(tmp_path, 1, "the loss is nan", diverged=True)
    error = ranks._first_failure(tmp_path, [1, 1])
    assert error.diverged
    assert str(error) == "rank 1: the loss is nan"


def test_a_worker_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    child = "import os, time; from crosstune.training.distributed.launcher import "
    child += "exit_with_parent as e; e(os.getppid());"
    child += "print(os.getpid(), flush=True); time.sleep(600)"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}])"
    parent += "; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        orphan = Path(f"/proc/{int(process.stdout.readline())}")
        assert orphan.exists()
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while orphan.exists() and "Z" not in (orphan / "stat").read_text().rpartition(")")[2][:3]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.slow
def test_a_diverged_rank_makes_the_run_diverged(tmp_path: Path) -> None:
    words = ("optimizer.learning_rate=1e30", "optimizer=sgd", "trainer.gradient_clip_val=null")
    run = tiny_run(tmp_path, "tagging", "trainer=ddp", *WORDS, *words)
    with pytest.raises(RunError, match="the loss is"):
        train(run)
    (path,) = tmp_path.glob("adhoc/*/record.json")
    assert json.loads(path.read_text())["status"] == "diverged"
