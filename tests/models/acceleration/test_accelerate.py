"""The speed-ups are on by default, and one option switches all of them off."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from crosstune.models.acceleration import accelerate, onednn_linear
from crosstune.models.acceleration.dropout import FastDropout
from crosstune.models.acceleration.onednn_linear import OneDnnLinear
from crosstune.runs.fingerprint import result_config
from crosstune.training.lightning_module import FineTuningModule
from crosstune.training.train import train
from tests.tiny import tiny_run

NO_DROPOUT = [
    f"+model.config.{name}=0.0" for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that gets (model, attention, parts of the batch) at every training step."""
    steps: list[Any] = []
    step = FineTuningModule.training_step

    def record(self: Any, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        steps.append((self.model, self.model.config._attn_implementation, len(batch["parts"])))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(FineTuningModule, "training_step", record)
    monkeypatch.setattr(accelerate, "use_onednn_linear", use_onednn_everywhere)
    return steps


def use_onednn_everywhere(layers: nn.Module) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn_linear, "prefers_onednn", lambda: True)
        onednn_linear.use_onednn_linear(layers)


def types_in(model: nn.Module) -> set[type]:
    return {type(module) for module in model.modules()}


def test_by_default_the_speed_ups_are_on(trained: list[Any], tmp_path: Path) -> None:
    train(tiny_run(tmp_path, "tagging"))
    model, attention, parts = trained[0]
    assert {FastDropout, OneDnnLinear} <= types_in(model)
    assert attention != "sdpa"
    assert parts == 1


def test_without_acceleration_the_model_is_plain_and_batches_are_whole(
    trained: list[Any], tmp_path: Path
) -> None:
    train(tiny_run(tmp_path, "tagging", "trainer.accelerate=false"))
    model, _, _ = trained[0]
    assert not {FastDropout, OneDnnLinear} & types_in(model)
    assert {attention for _, attention, _ in trained} == {"sdpa"}
    assert {parts for _, _, parts in trained} == {1}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_predictions_and_scores_are_the_same_without_acceleration(
    method: str, tmp_path: Path
) -> None:
    options = [f"method={method}", *NO_DROPOUT]
    options += ["method.peft.lora_dropout=0.0"] if method == "lora" else []
    runs = []
    for on in ("true", "false"):
        folder = train(
            tiny_run(tmp_path / on, "classification", *options, f"trainer.accelerate={on}")
        )
        record = json.loads((folder / "record.json").read_text("utf-8"))
        rows = pq.read_table(folder / "predictions.parquet").to_pylist()
        runs.append((record, [row.pop("score") for row in rows], rows))
    (fast, fast_scores, fast_rows), (plain, plain_scores, plain_rows) = runs
    assert fast_rows == plain_rows
    assert fast["scores"] == plain["scores"]
    assert fast_scores == pytest.approx(plain_scores, abs=1e-4)
    assert fast["run_id"] != plain["run_id"]


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("trainer.accelerate=false", "accelerate"),
        ("method.frozen_layers=evaluation", "frozen_layers"),
    ],
)
def test_an_option_newer_than_the_run_ids_counts_where_it_is_not_the_default(
    option: str, key: str, tmp_path: Path
) -> None:
    group = option.split(".")[0]
    assert key not in result_config(tiny_run(tmp_path, "tagging"))[group]
    assert key in result_config(tiny_run(tmp_path, "tagging", option))[group]
