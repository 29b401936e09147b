"""Frozen layers below the lowest trainable one drop nothing out; what is above them does."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn

from crosstune.methods import head_only
from crosstune.models.frozen_prefix import (
    FrozenPrefix,
    describe_frozen_prefix,
)
from crosstune.training.lightning_module import FineTuningModule
from crosstune.training.train import train
from tests.models.test_architectures import CONFIGS, WRITERS
from tests.models.test_architectures import build as build_cached
from tests.tiny import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")  # peft asks it
SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 32, "pad_token_id": 0}
DISTIL = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}


def build(kind: str, *saved: str, head: str = "SequenceClassification", **changes: Any) -> Any:
    """Return an adapted encoder of three layers of which `saved` modules alone are trained."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **DISTIL, **changes})
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    adapted: Any = get_peft_model(model, head_only(modules_to_save=["classifier", *saved]))
    adapted.frozen_prefix = FrozenPrefix(adapted)
    adapted.train()
    adapted.frozen_prefix.eval()
    return adapted


def modes(model: Any, kind: type[nn.Module] = nn.Dropout) -> dict[str, bool]:
    """Return the mode of each dropout, less those of modules that peft set aside."""
    return {
        name.removeprefix("base_model.model."): module.training
        for name, module in model.named_modules()
        if isinstance(module, kind) and ".original_module." not in name
    }


def test_dropout_is_off_below_the_lowest_trainable_layer_and_on_from_there() -> None:
    model = build("bert", "bert.encoder.layer.2")
    on = {name for name, mode in modes(model).items() if mode}
    assert on == {name for name in modes(model) if "layer.2." in name or name == "dropout"}
    assert len(on) == 4
    assert model.frozen_prefix.layers == 2


def test_attention_is_in_the_mode_of_its_layer() -> None:
    model = build("bert", "bert.encoder.layer.1")
    attention = modes(model, transformers.models.bert.modeling_bert.BertSelfAttention)
    assert list(attention.values()) == [False, True, True]


def test_with_a_trainable_pooler_and_head_all_layers_are_frozen_and_the_head_drops_out() -> None:
    model = build("bert", "bert.pooler")
    assert model.frozen_prefix.layers == 3
    assert {name for name, mode in modes(model).items() if mode} == {"dropout"}
    assert all(module.training for module in model.get_base_model().bert.pooler.modules())


def test_trainable_embeddings_leave_nothing_frozen_below_them() -> None:
    model = build("bert", "bert.embeddings")
    assert describe_frozen_prefix(model) == {"frozen_prefix": {"layers": 0, "cached": False}}
    assert all(module.training for module in model.modules())


def test_embeddings_alone_are_a_prefix_without_layers() -> None:
    model = build("bert", "bert.encoder.layer.0")
    assert model.frozen_prefix.layers == 0
    assert not modes(model)["bert.embeddings.dropout"]
    assert modes(model)["bert.encoder.layer.1.output.dropout"]


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
        LoraConfig(task_type="SEQ_CLS", target_modules=["query", "word_embeddings"]),
    ],
    ids=["prompt", "lora"],
)
def test_what_is_trained_at_the_input_leaves_no_prefix(config: Any) -> None:
    encoder = transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES))
    prefix = FrozenPrefix(get_peft_model(encoder, config))
    assert (prefix.layers, prefix.modules) == (0, [])


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_type_has_all_layers_below_a_head(kind: str) -> None:
    model = build_cached((kind, "Seq2SeqLM" if kind in WRITERS else "TokenClassification"))
    frozen = {name: weight.requires_grad for name, weight in model.named_parameters()}
    try:
        model.requires_grad_(False)
        prefix = FrozenPrefix(model)
        assert prefix.layers == (4 if kind in WRITERS else 2)
        assert set(model.base_model.modules()) <= set(prefix.modules)
    finally:
        for name, weight in model.named_parameters():
            weight.requires_grad_(frozen[name])


def test_a_type_that_the_table_lacks_is_frozen_as_a_whole() -> None:
    small = {"embedding_size": 8, "num_hidden_layers": 2}
    model = build("albert", "albert.pooler", **small)
    assert {name for name, mode in modes(model).items() if mode} == {"dropout"}
    assert modes(build("albert", "albert.encoder", **small))["albert.embeddings.dropout"] is False


def test_the_frozen_layers_say_the_same_of_a_text_at_every_pass() -> None:
    model = build("bert", "bert.encoder.layer.2", hidden_dropout_prob=0.5)
    seen: list[torch.Tensor] = []
    layers = model.get_base_model().bert.encoder.layer
    for layer in (layers[1], layers[2]):
        layer.register_forward_hook(lambda module, args, output: seen.append(output))
    for _ in range(2):
        model(input_ids=torch.full((1, 5), 7))
    assert torch.equal(seen[0], seen[2])
    assert not seen[0].requires_grad
    assert not torch.equal(seen[1], seen[3])


def test_a_run_keeps_its_frozen_layers_in_evaluation_mode_in_every_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[dict[str, bool]] = []
    step = FineTuningModule.training_step

    def record(self: Any, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        steps.append(modes(self.model, nn.Module))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(FineTuningModule, "training_step", record)
    options = ["method=top_layers", "method.layers=1", "model.config.num_hidden_layers=2"]
    train(tiny_run(tmp_path, "classification", *options))
    assert len(steps) == 10  # of two epochs, with a validation between them
    for step_modes in steps:
        assert not step_modes["bert.embeddings.dropout"]
        assert not step_modes["bert.encoder.layer.0.attention.self"]
        assert step_modes["bert.encoder.layer.1.modules_to_save.default.attention.self"]
        assert step_modes["dropout"]
