"""Our training against a plain PyTorch loop over padded batches: the same loss at every step."""

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import transformers
from peft import AdaLoraConfig, IA3Config, LoraConfig, PrefixTuningConfig, get_peft_model
from torch.nn.functional import cross_entropy

from crosstune.methods import head_only
from crosstune.methods.bitfit import BitFitConfig
from crosstune.models.load import load_model, load_tokenizer
from crosstune.training.batching import BatchDataset, TrainingSampler
from crosstune.training.datamodule import FineTuningData
from crosstune.training.prepare import Prepared, prepare
from crosstune.training.train import train
from tests.tiny import METHODS, tiny_run

STEPS = 8
CASES = [(name, "classification") for name in (*METHODS, "adalora", "prefix_tuning")]
CASES += [(name, "tagging") for name in ("lora", "ia3", "adalora")]
CASES += [("full", "masked_lm")]
FEED_FORWARD = ["bert.encoder.layer.0.output.dense"]
SELF = "bert.encoder.layer.0.attention.self"
WITHOUT_DROPOUT = (  # a batch in parts draws other masks than a whole one
    "+model.config.hidden_dropout_prob=0.0",
    "+model.config.attention_probs_dropout_prob=0.0",
)


def recorded_losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def plain_losses(prepared: Prepared, learning_rate: float) -> tuple[list[float], Any]:
    """Train in twenty lines of plain PyTorch, with the model's own loss; return its model, too."""
    run, task, cache = prepared.run, prepared.task, Path(prepared.run.outputs) / ".cache"
    pl.seed_everything(run.seed, verbose=False)
    texts, content = prepared.tokenizer_texts()
    tokenizer = load_tokenizer(run.model, texts, content, cache)
    model, head, _ = load_model(run.model, task, tokenizer, [])
    configs: dict[str, Any] = {
        "head_only": lambda: head_only(task.peft_type, head),
        "bitfit": lambda: BitFitConfig(task_type=task.peft_type, modules_to_save=head),
        "lora": lambda: LoraConfig(
            r=8,
            lora_alpha=16,
            task_type=task.peft_type,
            modules_to_save=head,
        ),
        "ia3": lambda: IA3Config(
            target_modules=[f"{SELF}.key", f"{SELF}.value", *FEED_FORWARD],
            feedforward_modules=FEED_FORWARD,
            task_type=task.peft_type,
            modules_to_save=head,
        ),
        "prefix_tuning": lambda: PrefixTuningConfig(
            num_virtual_tokens=20, task_type=task.peft_type, modules_to_save=head
        ),
        "adalora": lambda: AdaLoraConfig(
            target_modules=["query", "key", "value", "intermediate.dense", "output.dense"],
            init_r=12,
            target_r=8,
            lora_alpha=16,
            orth_reg_weight=0.1,
            total_step=10,
            tinit=2,
            tfinal=5,
            task_type=task.peft_type,
            modules_to_save=head,
        ),
    }
    if run.method.name in configs:
        model = get_peft_model(model, configs[run.method.name]())
    model.train()
    data = FineTuningData(prepared.splits, task, tokenizer, run.data, run.seed, cache)
    (encoded,) = data.encoded["train"].values()
    order = TrainingSampler(len(encoded), run.data.batch_size, run.seed)
    batches = BatchDataset(encoded, task, tokenizer, run.seed)
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    # vectors are not decayed, nor are those that (IA)3 and AdaLoRA write as matrices
    vectors = {name for name, p in trainable if p.ndim == 1 or "ia3_l" in name or "lora_E" in name}
    groups = [
        {"params": [p for name, p in trainable if name not in vectors], "weight_decay": 0.01},
        {"params": [p for name, p in trainable if name in vectors], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    total = len(order) * run.trainer.max_epochs
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, round(total / 10), total)
    losses: list[float] = []
    for epoch in range(run.trainer.max_epochs):
        order.set_epoch(epoch)
        for share in order:
            batch = batches[share]
            output = model(**batch["inputs"], labels=batch["labels"])
            output.loss.backward()  # AdaLoRA's penalty in it
            torch.nn.utils.clip_grad_norm_([p for _, p in trainable], 1.0)
            optimizer.step()
            schedule.step()
            if run.method.name == "adalora":
                model.base_model.update_and_allocate(len(losses))
            optimizer.zero_grad()
            said, wanted = output.logits.flatten(0, -2), batch["labels"].flatten()
            losses.append(cross_entropy(said, wanted).item())
    return losses, model


@pytest.mark.parametrize(("method", "kind"), CASES)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
def test_training_gives_the_losses_of_a_plain_loop_at_every_step(
    method: str, kind: str, tmp_path: Path
) -> None:
    options = [f"method={method}", "trainer.log_every_n_steps=1", *WITHOUT_DROPOUT]
    if method in ("lora", "adalora"):
        options.append("method.peft.lora_dropout=0.0")
    run = tiny_run(tmp_path, kind, *options)
    ours = recorded_losses(train(run))
    plain, _ = plain_losses(prepare(run), run.optimizer.learning_rate)
    assert len(ours) == len(plain) >= STEPS
    assert ours == pytest.approx(plain, rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
def test_the_ranks_that_adalora_keeps_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    options = ["method=adalora", "method.peft.lora_dropout=0.0", *WITHOUT_DROPOUT]
    run = tiny_run(tmp_path, "tagging", *options)
    saved = json.loads((train(run) / "model" / "adapter_config.json").read_text())
    _, model = plain_losses(prepare(run), run.optimizer.learning_rate)
    plain = model.peft_config["default"].rank_pattern
    kept = {name.removesuffix(".default"): ranks for name, ranks in plain.items()}
    assert saved["rank_pattern"] == kept
    assert len({sum(ranks) for ranks in kept.values()}) > 1


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
def test_the_plain_loop_tells_another_learning_rate(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, "classification", "trainer.log_every_n_steps=1", *WITHOUT_DROPOUT)
    ours = recorded_losses(train(run))
    plain, _ = plain_losses(prepare(run), run.optimizer.learning_rate * 1.1)
    assert ours != pytest.approx(plain, rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
def test_the_losses_tell_that_dropout_is_on(tmp_path: Path) -> None:
    with_dropout = tiny_run(tmp_path, "classification", "trainer.log_every_n_steps=1")
    without = tiny_run(tmp_path, "classification", "trainer.log_every_n_steps=1", *WITHOUT_DROPOUT)
    assert recorded_losses(train(with_dropout)) != recorded_losses(train(without))
