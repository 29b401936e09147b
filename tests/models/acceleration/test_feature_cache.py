"""A head trained on features that are kept is the head trained on features computed each time."""

import logging
from typing import Any

import pytest
import torch
import transformers
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import load_file

from crosstune.methods import head_only
from crosstune.models.acceleration import feature_cache as features
from crosstune.models.acceleration.feature_cache import find_features
from crosstune.models.acceleration.unpad import LAYERS
from crosstune.training import lightning_module as learner
from crosstune.training.train import train
from tests.tiny import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")  # peft asks it
SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 32, "pad_token_id": 0, "initializer_range": 0.4}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
DISTIL |= {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0}
HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")
STILL_RUN = [f"+model.config.{name}=0.0" for name in STILL]


def build(kind: str, head: str = HEADS[0], **changes: Any) -> Any:
    """Return an encoder of which nothing but the head is trained, as head_only leaves it."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **STILL, **DISTIL, **changes})
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config).double()
    whole = [name for name, _ in model.named_children() if name != model.base_model_prefix]
    if getattr(model.base_model, "pooler", None) is not None:
        whole.append(f"{model.base_model_prefix}.pooler")
    return get_peft_model(model, head_only(modules_to_save=whole)).train()


def make_batch(lengths: tuple[int, ...], seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 50, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask}


def learn(model: Any, *batches: dict[str, torch.Tensor]) -> Any:
    found = find_features(model, 100, 1000)
    assert found is not None
    found.learn({"inputs": batch} for batch in batches)
    return found


def read(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    said = model(**batch)
    logits = said.start_logits if "start_logits" in said else said.logits
    held = logits.shape[:2] == batch["attention_mask"].shape
    return logits[batch["attention_mask"].bool()] if held else logits


def count_calls(model: Any) -> list[int]:
    """Return a list that grows with every pass through the first layer."""
    calls: list[int] = []
    layers = getattr(model.get_base_model().base_model, LAYERS[model.config.model_type]).layer
    layers[0].register_forward_pre_hook(lambda module, args: calls.append(1))
    return calls


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", LAYERS)
def test_logits_are_those_of_the_encoder_itself(kind: str, head: str) -> None:
    model = build(kind, head)
    batch, other = make_batch((7, 3, 12)), make_batch((5, 9), seed=2)
    mixed = {name: torch.cat([batch[name][1:2, :5], other[name][:1, :5]]) for name in batch}
    expected = read(model, mixed).detach()
    calls = count_calls(model)
    learn(model, batch, other)
    assert torch.allclose(read(model, mixed), expected, rtol=0, atol=1e-12)
    assert len(calls) == 2


def test_the_head_gets_its_gradient() -> None:
    model, batch = build("bert"), make_batch((7, 3))
    weights = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(read(model, batch).square().sum(), weights)
    learn(model, batch)
    for one, other in zip(
        torch.autograd.grad(read(model, batch).square().sum(), weights), expected, strict=True
    ):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


def test_texts_that_differ_in_their_segments_alone_are_two() -> None:
    model, batch = build("bert"), make_batch((6, 6))
    batch["input_ids"][1] = batch["input_ids"][0]
    batch["token_type_ids"] = torch.tensor([[0] * 6, [0, 0, 0, 1, 1, 1]])
    expected = read(model, batch).detach()
    learn(model, batch)
    said = read(model, batch)
    assert torch.allclose(said, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(said[0], said[1])


def test_a_text_that_is_new_is_computed() -> None:
    model, known, new = build("bert"), make_batch((7, 3)), make_batch((4, 8), seed=3)
    expected = read(model, new).detach()
    learn(model, known)
    assert torch.equal(read(model, new), expected)


def test_the_encoder_is_left_as_it_was() -> None:
    model, batch = build("bert"), make_batch((7, 3))
    calls = count_calls(model)
    found = learn(model, batch)
    found.end()
    read(model, batch)
    assert len(calls) == 2
    assert not found.known


def test_an_encoder_that_drops_out_is_asked_anew_and_says_so(caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        assert find_features(build("bert", attention_probs_dropout_prob=0.1), 1, 1) is None
    assert "the encoder is frozen, but drops out" in caplog.text


def test_too_many_features_are_not_kept_and_it_says_so(caplog: Any) -> None:
    model = build("bert", "TokenClassification")
    with caplog.at_level(logging.INFO):
        assert find_features(model, 1, features.ROOM // 4 // 16 + 1) is None
    assert "1024 MiB of features are too many to keep" in caplog.text
    assert find_features(model, 1, features.ROOM // 4 // 16) is not None


def train_more(model: Any) -> Any:
    model.get_base_model().base_model.encoder.layer[1].output.dense.bias.requires_grad = True
    return model


def train_nothing(model: Any) -> Any:
    return model.requires_grad_(False)


def prompt(model: Any) -> Any:
    asked = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    return get_peft_model(model.get_base_model(), asked)


@pytest.mark.parametrize("change", [train_more, train_nothing, prompt])
def test_where_more_or_nothing_is_trained_nothing_is_kept(change: Any) -> None:
    assert find_features(change(build("bert")), 1, 1) is None


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_a_run_with_kept_features_ends_as_one_without(
    kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["method=head_only", *STILL_RUN, "trainer.max_epochs=3"]
    kept = train(tiny_run(tmp_path / "kept", kind, *options))
    assert "computed once for" in (kept / "log.txt").read_text("utf-8")
    monkeypatch.setattr(learner, "find_features", lambda *_: None)
    computed = train(tiny_run(tmp_path / "computed", kind, *options))
    one, other = (read_weights(folder) for folder in (kept, computed))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.allclose(weight, other[name], rtol=0, atol=1e-5), name


def read_weights(folder: Any) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "adapter_model.safetensors")
