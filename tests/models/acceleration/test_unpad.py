"""Layers that see no padding give the loss and the gradient of the padded batch."""

import copy
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from crosstune.models.acceleration import unpad as unpadding
from crosstune.models.acceleration.unpad import group_by_length, unpad
from crosstune.models.architectures import ARCHITECTURES

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 32, "pad_token_id": 0, "initializer_range": 0.4}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
DISTIL |= {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0}
UNPADDED = [kind for kind, row in ARCHITECTURES.items() if row.layer_stack]
LENGTHS = (7, 3, 12, 3, 12, 5, 6, 1)
HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")


def build(kind: str, head: str = HEADS[0], **changes: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **STILL, **DISTIL, **changes})
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    return model.train().double()  # what is left of a difference is none of rounding


def make_batch(lengths: tuple[int, ...] = LENGTHS) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    columns = torch.arange(max(lengths))
    mask = (columns < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(5, 50, mask.shape) * mask, "attention_mask": mask}


def differentiate(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the gradient of a sum over what is no padding."""
    logits = model(**batch)
    logits = logits.start_logits if "start_logits" in logits else logits.logits
    if logits.shape[:2] == batch["attention_mask"].shape:
        logits = logits[batch["attention_mask"].bool()]
    model.zero_grad()
    (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def compare(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """Return how far the gradient without padding is from that with it, relative to it."""
    padded = differentiate(model, batch)
    unpadded = unpad(model)
    assert unpadded is not None
    found = differentiate(model, batch)
    unpadded.end()
    return float((found - padded).norm() / padded.norm())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", UNPADDED)
def test_the_gradient_is_that_of_the_padded_batch(kind: str, head: str) -> None:
    assert compare(build(kind, head), make_batch()) < 1e-12


@pytest.mark.parametrize("lengths", [(9, 9, 9), (4,), (1, 1, 30), tuple(range(1, 33))])
def test_so_it_is_for_batches_of_any_shape(lengths: tuple[int, ...]) -> None:
    assert compare(build("bert"), make_batch(lengths)) < 1e-12


def test_the_layers_see_less(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("bert")
    seen = []
    model.bert.encoder.layer[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[0] * args[0].shape[1])
    )
    monkeypatch.setattr(unpadding, "GROUP_COST", 0)
    compare(model, make_batch())
    assert seen == [len(LENGTHS) * max(LENGTHS), -(-sum(LENGTHS) // 4) * 4]


def test_batches_come_in_few_sizes_and_little_more() -> None:
    sizes = set()
    for tokens in range(512, 1024):
        groups = group_by_length(make_batch((tokens // 2, tokens - tokens // 2))["attention_mask"])
        assert groups is not None
        assert 0 <= groups.filling <= tokens / 8
        sizes.add(len(groups.indices) + groups.filling)
    assert len(sizes) == 9


@pytest.mark.parametrize("lengths", [LENGTHS, (8, 8)])
def test_in_bf16_sub_words_come_in_multiples(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpadding, "BF16_MULTIPLE", 8)
    model, seen = build("bert").float(), []
    model.bert.encoder.layer[0].register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[:2].numel())
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert compare(model, make_batch(lengths)) < 0.1
    assert seen[1] % 8 == 0
    assert seen[1] < seen[0] or len(set(lengths)) == 1


def test_what_is_spare_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    grouped = group_by_length
    monkeypatch.setattr(unpadding, "group_by_length", lambda mask, multiple: grouped(mask, 7))
    assert compare(build("bert"), make_batch()) < 1e-12


@pytest.mark.parametrize("fault", ["open", "moved"])
def test_padding_that_is_seen_or_moved_is_told(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(mask: torch.Tensor, multiple: int) -> Any:
        groups = group_by_length(mask)
        assert groups is not None
        if fault == "open":
            return groups._replace(masks=[None] * len(groups.masks))
        return groups._replace(indices=groups.indices.roll(1))

    monkeypatch.setattr(unpadding, "group_by_length", spoil)
    assert compare(build("bert"), make_batch()) > 1e-2


def test_attention_drops_weights_as_often_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("bert", attention_probs_dropout_prob=0.25)
    asked = []
    drop = unpadding.apply_dropout
    monkeypatch.setattr(unpadding, "apply_dropout", lambda x, p: [asked.append(p), drop(x, p)][1])
    assert compare(model, make_batch()) > 1e-2
    assert set(asked) == {0.25}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
def test_layers_that_peft_copies_see_no_padding_either() -> None:
    saved = LoraConfig(target_modules=["query"], modules_to_save=["layer.1", "classifier"])
    model: Any = get_peft_model(build("bert"), saved)
    assert compare(model, make_batch()) < 1e-12
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    assert {config._attn_implementation for config in configs} == {"sdpa"}


def test_evaluation_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build("bert").eval(), make_batch()
    with torch.no_grad():
        before = model(**batch).logits
        unpadded = unpad(model)
        monkeypatch.setattr(unpadding, "group_by_length", None)
        assert torch.equal(model(**batch).logits, before)
    assert unpadded is not None


def test_the_end_leaves_the_model_as_it_was() -> None:
    model = build("bert")
    config, hooks = copy.deepcopy(model.config), len(model.bert.encoder._forward_hooks)
    unpadded = unpad(model)
    assert model.config._attn_implementation != "sdpa"
    assert "groups" not in model.config.to_json_string()
    assert unpadded is not None
    unpadded.end()
    assert model.config._attn_implementation == config._attn_implementation == "sdpa"
    assert len(model.bert.encoder._forward_hooks) == hooks


@pytest.mark.parametrize("mask", [[[0, 1, 1]], [[1, 0, 1]], [[1, 1, 1], [0, 0, 0]]])
def test_other_masks_are_not_taken_for_padding(mask: list[list[int]]) -> None:
    assert group_by_length(torch.tensor(mask)) is None


def test_a_model_that_is_not_made_for_it_stays_as_it_is() -> None:
    assert unpad(build("bert", "MaskedLM")) is None
    assert unpad(build("deberta-v2")) is None
    eager = build("bert")
    eager.set_attn_implementation("eager")
    assert unpad(eager) is None
    assert isinstance(unpad(build("bert")), unpadding.UnpaddedLayers)
