"""Several processes for one run: the same scores as one process, and no rank left behind."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

from crosstune import ranks
from crosstune.data.module import LanguageData
from crosstune.errors import RunError
from crosstune.learner import Learner
from crosstune.models import load_model, load_tokenizer
from crosstune.prepare import prepare
from crosstune.run import train
from crosstune.schema import Run
from crosstune.telling import quiet
from tiny import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")


NO_DROPOUT = [f"+model.config.{name}_dropout_prob=0.0" for name in ("hidden", "attention_probs")]
# 40 rows in batches of 6: the last batch has 4
WORDS = (*NO_DROPOUT, "trainer.accelerator=cpu", "data.batch_size=6")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """Return a run on two ranks and its folder."""
    run = tiny_run(tmp_path_factory.mktemp("two"), "tagging", "trainer=ddp", *WORDS)
    return run, train(run)


def test_two_ranks_give_the_scores_of_one_process_with_the_same_weights(
    trained: tuple[Run, Path], tmp_path: Path
) -> None:
    run, folder = trained
    record = json.loads((folder / "record.json").read_text())
    prepared = prepare(run)
    texts, content = prepared.training_texts()
    tokenizer = load_tokenizer(run.model, texts, content, tmp_path / ".cache")
    loaded = load_model(run.model, prepared.task, tokenizer, [])
    loaded.model.load_state_dict(load_file(folder / "model" / "model.safetensors"))
    data = LanguageData(prepared.splits, prepared.task, tokenizer, run.data, 1, tmp_path / ".cache")
    alone = Learner(loaded.model, prepared.task, data, run.optimizer, [], 10)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with quiet():
        trainer.test(alone, data, verbose=False)
    assert len(prepared.splits["test"]["zh"].rows) % 2 == 1
    assert alone.results["test"]["zh"]["scores"] == record["scores"]["test"]["zh"]
    table = pd.read_parquet(folder / "predictions.parquet")
    assert [list(p) for p in table["prediction"]] == [p.prediction for p in alone.collect("zh")]


def test_two_ranks_train_as_one_process_does(trained: tuple[Run, Path], tmp_path: Path) -> None:
    _, two = trained
    one = train(tiny_run(tmp_path, "tagging", *WORDS))
    assert one.name == two.name, "the number of devices is no part of a run's identity"
    left, right = (load_file(f / "model" / "model.safetensors") for f in (one, two))
    assert all(torch.allclose(left[name], right[name], atol=2e-5) for name in left)


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
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$3"\n')
    launcher.chmod(0o755)
    monkeypatch.setattr(ranks.sys, "executable", str(launcher))
    with pytest.raises(RunError, match="rank 1: ended with exit code 7"):
        ranks.fan_out(tmp_path, 2)
    sleeper = tmp_path / "pid-0"
    if sleeper.exists():  # it may have been stopped before it wrote
        assert not Path(f"/proc/{sleeper.read_text()}").exists()
