"""One run and one study, through the same entry as the command line."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from crosstune.cli.main import main
from crosstune.config.compose import compose_run
from crosstune.errors import ConfigError, RunError
from crosstune.runs.record import write_record
from crosstune.training import lightning_module as learner
from crosstune.training.failures import Diverged
from crosstune.training.train import train
from tests.tiny import DATA, METHODS, tiny_overrides, tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["crosstune", *arguments])
    return main()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a finished run of each kind, by LoRA, and of masked LM by full fine-tuning."""
    outputs = tmp_path_factory.mktemp("finished")
    methods = {"classification": "lora", "tagging": "lora", "masked_lm": "full"}
    return {kind: train(tiny_run(outputs, kind, f"method={methods[kind]}")) for kind in DATA}


@pytest.mark.parametrize("kind", DATA)
def test_a_run_leaves_what_the_interface_names(kind: str, finished: dict[str, Path]) -> None:
    folder = finished[kind]
    names = {
        "config.yaml",
        "record.json",
        "task.json",
        "metrics.jsonl",
        "predictions.parquet",
        "model",
        "log.txt",
    }
    assert {path.name for path in folder.iterdir()} == names
    record = record_of(folder)
    assert record["schema"] == 1
    assert record["status"] == "finished"
    assert record["run_id"] == folder.name
    assert record["config"] == yaml.safe_load((folder / "config.yaml").read_text())
    costs = ("total_parameters", "trainable_parameters", "train_seconds", "checkpoint_bytes")
    assert all(record["cost"][name] > 0 for name in costs)


@pytest.mark.parametrize("kind", DATA)
def test_scores_are_fractions(kind: str, finished: dict[str, Path]) -> None:
    scores = record_of(finished[kind])["scores"]
    values = [
        v for split in scores.values() for language in split.values() for v in language.values()
    ]
    assert values
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize("kind", DATA)
def test_predictions_hold_every_test_item_once_in_order(
    kind: str, finished: dict[str, Path]
) -> None:
    table = pd.read_parquet(finished[kind] / "predictions.parquet")
    assert list(table.columns) == ["id", "language", "gold", "prediction", "score"]
    assert len(table) == 7 * (3 if kind == "masked_lm" else 1)
    assert table["id"].is_unique


def test_the_recorded_accuracy_is_that_of_the_predictions(finished: dict[str, Path]) -> None:
    table = pd.read_parquet(finished["classification"] / "predictions.parquet")
    accuracy = (table["gold"] == table["prediction"]).mean()
    assert record_of(finished["classification"])["scores"]["test"]["es"]["accuracy"] == accuracy


def test_metrics_jsonl_names_split_language_and_metric(finished: dict[str, Path]) -> None:
    lines = (finished["tagging"] / "metrics.jsonl").read_text().splitlines()
    names = {name for line in lines for name in json.loads(line)}
    assert {"train/loss", "validation/zh/f1", "test/zh/f1", "step"} <= names


def test_the_loss_is_logged_where_it_is_read_and_told_at_each_validation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    log = learner.FineTuningModule.log

    def count(self: Any, name: str, *rest: Any, **options: Any) -> None:
        asked.append(name)
        log(self, name, *rest, **options)

    monkeypatch.setattr(learner.FineTuningModule, "log", count)
    with caplog.at_level(logging.INFO, logger="crosstune"):
        folder = train(tiny_run(tmp_path, "classification", "trainer.log_every_n_steps=4"))
    assert asked.count("train/loss") == 2
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if "train/loss" in line] == [3, 7]  # from 0
    assert re.findall(r"step (\d+): loss \d", caplog.text) == ["5", "10"]


def test_the_saved_adapter_gives_the_recorded_predictions_in_plain_peft(
    finished: dict[str, Path],
) -> None:
    folder = finished["classification"]
    base = json.loads((folder / "model" / "adapter_config.json").read_text())
    encoder = AutoModelForSequenceClassification.from_pretrained(base["base_model_name_or_path"])
    model = PeftModel.from_pretrained(encoder, folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    from crosstune.data.synthetic.demo import read_demo_sentiment

    rows = read_demo_sentiment("test", language="es", rows={"test": 7}).rows
    texts = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        best = model(**texts).logits.argmax(-1).tolist()
    table = pd.read_parquet(folder / "predictions.parquet")
    labels = model.config.id2label
    assert [labels[b] for b in best] == list(table["prediction"])


def test_an_adapter_folder_holds_no_base_weight(finished: dict[str, Path]) -> None:
    weights = load_file(finished["tagging"] / "model" / "adapter_model.safetensors")
    assert all("lora_" in name or "classifier" in name for name in weights)


def test_masked_lm_leaves_an_encoder_that_plain_transformers_loads(
    finished: dict[str, Path],
) -> None:
    _, info = AutoModelForMaskedLM.from_pretrained(
        finished["masked_lm"] / "model", output_loading_info=True
    )
    assert not info["missing_keys"]


def test_local_continues_from_what_masked_lm_left(
    finished: dict[str, Path], tmp_path: Path
) -> None:
    path = finished["masked_lm"]
    more = ("model=local", f"model.path={path}", "method=head_only", "trainer.max_steps=1")
    plain = [o for o in tiny_overrides(tmp_path, "classification") if not o.startswith("model")]
    from crosstune.config.compose import compose_run

    folder = train(compose_run([*plain, *more]))
    left = load_file(path / "model" / "model.safetensors")
    kept = load_file(folder / "model" / "adapter_model.safetensors")
    assert not any("encoder.layer" in name for name in kept)
    assert any("pooler" in name for name in kept), "a pooler that masked LM never trained is new"
    assert "bert.pooler.dense.weight" not in left


def test_a_finished_run_is_not_trained_again(finished: dict[str, Path], caplog: Any) -> None:
    folder = finished["classification"]
    before = (folder / "record.json").stat().st_mtime_ns
    with caplog.at_level("INFO"):
        again = train(tiny_run(folder.parents[1], "classification", "method=lora"))
    assert again == folder
    assert (folder / "record.json").stat().st_mtime_ns == before
    assert "finished already" in caplog.text


def test_a_failed_run_is_recorded_and_tried_again_only_when_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("classification", "data.max_tokens=600")
    with pytest.raises(ConfigError, match="600"):
        train(tiny_run(tmp_path, *words))
    (path,) = tmp_path.glob("adhoc/*/record.json")
    record = record_of(path.parent)
    assert record["status"] == "failed"
    assert "512 positions" in record["error"]
    written = path.stat().st_mtime_ns
    with pytest.raises(RunError, match=r"failed before: .*512 positions.*retry=true"):
        train(tiny_run(tmp_path, *words))
    assert path.stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match="600"):
        train(tiny_run(tmp_path, *words, "retry=true"))
    assert path.stat().st_mtime_ns > written


def test_an_infinite_loss_is_recorded_as_diverged_before_it_moves_a_weight(tmp_path: Path) -> None:
    words = ("optimizer.learning_rate=1e30", "optimizer=sgd", "trainer.gradient_clip_val=null")
    run = tiny_run(tmp_path, "classification", *words)
    with pytest.raises(Diverged):
        train(run)
    (path,) = tmp_path.glob("adhoc/*/record.json")
    assert record_of(path.parent)["status"] == "diverged"
    with pytest.raises(RunError, match="diverged before"):
        train(run)


def test_what_failed_goes_on_from_its_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("classification", "trainer.checkpoint_every_seconds=0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner.FineTuningModule, "test_step", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tiny_run(tmp_path, *words))
    with caplog.at_level("INFO"):
        folder = train(tiny_run(tmp_path, *words, "retry=true"))
    assert record_of(folder)["status"] == "finished"
    assert "goes on from epoch 3" in caplog.text


def test_a_run_of_another_version_is_stale_and_done_anew_only_when_asked(
    finished: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(finished["classification"], tmp_path / "adhoc" / "run")
    folder = folder.rename(folder.with_name(finished["classification"].name))
    record = record_of(folder)
    record["environment"]["peft"] = "0.1"
    write_record(folder, record)
    words = (tmp_path, "classification", "method=lora")
    with caplog.at_level("INFO"):
        train(tiny_run(*words))
    assert "it is stale: peft was 0.1 and is" in caplog.text
    assert record_of(folder)["environment"]["peft"] == "0.1"
    train(tiny_run(*words, "retry=true"))
    assert record_of(folder)["environment"]["peft"] != "0.1"


def test_the_best_checkpoint_is_the_one_tested(tmp_path: Path) -> None:
    folder = train(tiny_run(tmp_path, "classification", "trainer.max_epochs=4"))
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    scores = [x["validation/es/accuracy"] for x in lines if "validation/es/accuracy" in x]
    record = record_of(folder)
    assert record["scores"]["validation"]["es"]["accuracy"] == max(scores)
    assert record["best_step"] == 5 * (scores.index(max(scores)) + 1)


def test_patience_stops_before_the_last_epoch(tmp_path: Path) -> None:
    stuck = ("optimizer.learning_rate=0.0", "trainer.patience=1", "trainer.max_epochs=5")
    folder = train(tiny_run(tmp_path, "classification", *stuck))
    assert "validation/es/accuracy" in (folder / "metrics.jsonl").read_text()
    assert (folder / "metrics.jsonl").read_text().count("validation/es/accuracy") == 2


@pytest.mark.parametrize("method", METHODS)
def test_frozen_weights_stay_bit_identical(method: str, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    original = learner.FineTuningModule.on_fit_start

    def remember(self: Any) -> None:
        original(self)
        seen["module"] = self
        seen["before"] = {n: p.detach().clone() for n, p in self.named_parameters()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner.FineTuningModule, "on_fit_start", remember)
        train(tiny_run(tmp_path, "tagging", f"method={method}"))
    after = dict(seen["module"].named_parameters())
    frozen = [name for name, p in after.items() if not p.requires_grad]
    moved = [
        n for n, p in after.items() if p.requires_grad and not torch.equal(p, seen["before"][n])
    ]
    assert bool(frozen) == (method != "full")
    assert all(torch.equal(after[name], seen["before"][name]) for name in frozen)
    assert moved, "the check itself must see what training moves"


def test_a_sweep_trains_reports_and_skips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["-m", "experiment=study", "method=full,head_only", "seed=1,2"]
    arguments = ["train", *sweep, *tiny_overrides(tmp_path, "classification")]
    assert run_cli(monkeypatch, *arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("study/*/record.json")}
    assert len(stamps) == 4
    assert run_cli(monkeypatch, *arguments) == 0
    assert capsys.readouterr().err.count("finished already") == 4
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert not list(tmp_path.rglob("multirun.yaml"))
    study = ["experiment=study", f"outputs={tmp_path}"]
    assert run_cli(monkeypatch, "status", *study) == 0
    assert "4 runs, 4 finished" in capsys.readouterr().out
    assert run_cli(monkeypatch, "report", *study) == 0
    table = capsys.readouterr().out
    assert "full" in table
    assert "head_only" in table
    assert "(2)" in table


def test_a_failing_run_of_a_sweep_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ["-m", "experiment=study", "data.max_tokens=600,64", "trainer.max_steps=1"]
    assert run_cli(monkeypatch, "train", *sweep, *tiny_overrides(tmp_path, "classification")) == 2
    errors = capsys.readouterr().err
    assert "600" in errors
    assert "1 of 2 runs failed" in errors
    run_cli(monkeypatch, "status", "experiment=study", f"outputs={tmp_path}")
    assert "1 failed, 1 finished" in capsys.readouterr().out


def test_a_fresh_process_gives_the_predictions_and_scores_of_this_one(tmp_path: Path) -> None:
    here, there = (tiny_overrides(tmp_path / n, "tagging", "method=lora") for n in ("a", "b"))
    command = [sys.executable, "-m", "crosstune", "train", *there]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = []
    for folder in (train(compose_run(here)), Path(done.stdout.strip())):
        table = pd.read_parquet(folder / "predictions.parquet")
        rows = [
            [str(list(v)) if hasattr(v, "__len__") else v for v in row] for row in table.to_numpy()
        ]
        found.append((record_of(folder)["scores"], rows))
    assert found[0] == found[1]


def test_bf16_clips_the_gradients_of_a_fused_optimizer(tmp_path: Path) -> None:
    words = ("trainer.precision=bf16", "optimizer.learning_rate=0.01", "trainer.max_steps=2")
    weights = []
    for limit in ("1e-9", "1.0"):
        run = tiny_run(tmp_path, "classification", f"trainer.gradient_clip_val={limit}", *words)
        assert run.optimizer.algorithm["fused"]
        weights.append(load_file(train(run) / "model" / "model.safetensors"))
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
