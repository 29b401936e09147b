"""Training on cached outputs of frozen layers is training on outputs computed each time."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from peft import get_peft_model
from safetensors.torch import load_file

from crosstune.methods import head_only
from crosstune.models.acceleration import accelerate, prefix_cache
from crosstune.models.acceleration.prefix_cache import PrefixCache, make_prefix_cache
from crosstune.models.acceleration.unpad import unpad
from crosstune.models.architectures import ARCHITECTURES
from crosstune.models.frozen_prefix import FrozenPrefix
from crosstune.training.train import train
from tests.tiny import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")  # peft asks it
SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 32, "pad_token_id": 0, "initializer_range": 0.4}
DISTIL = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
NO_DROPOUT = {"classifier_dropout": 0.0, "seq_classif_dropout": 0.0, "qa_dropout": 0.0}
NO_DROPOUT |= {"summary_last_dropout": 0.0}
HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")
CACHED = [kind for kind, row in ARCHITECTURES.items() if row.layer_stack]


def build(kind: str, head: str = HEADS[0], top: int = 0, **changes: Any) -> Any:
    """Return an encoder of which the head and the `top` layers are trained.

    The frozen layers are made to drop out; what is above them does not.
    """
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SIZES, **DISTIL, **NO_DROPOUT, **changes})
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config).double()
    prefix = model.base_model_prefix
    saved = [name for name, _ in model.named_children() if name not in (prefix, "dropout")]
    if getattr(model.base_model, "pooler", None) is not None:
        saved.append(f"{prefix}.pooler")
    stack = ARCHITECTURES[kind].layer_stack
    saved += [f"{prefix}.{stack}.layer.{2 - number}" for number in range(top)]
    adapted: Any = get_peft_model(model, head_only(modules_to_save=saved))
    adapted.frozen_prefix = FrozenPrefix(adapted)
    adapted.train()
    adapted.frozen_prefix.eval()
    for module in adapted.get_base_model().children():
        module.p = 0.0  # of the dropout before the head
    for module in stack_of(adapted).layer[3 - top :].modules():
        module.p = module.dropout_prob = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
        module.training = module.training and not hasattr(module, "query")
    return adapted


def stack_of(model: Any) -> Any:
    base = model.get_base_model()
    return base.base_model.get_submodule(ARCHITECTURES[base.config.model_type].layer_stack)


def make_batch(lengths: tuple[int, ...], seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 50, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask}


def fill(model: Any, *batches: dict[str, torch.Tensor]) -> PrefixCache:
    cache = make_prefix_cache(model, model.frozen_prefix, 100, 1000)
    assert cache is not None
    cache.fill({"inputs": batch} for batch in batches)
    return cache


def read(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    outputs = model(**batch)
    logits = outputs.start_logits if "start_logits" in outputs else outputs.logits
    by_token = logits.shape[:2] == batch["attention_mask"].shape
    return logits[batch["attention_mask"].bool()] if by_token else logits


def count_calls(model: Any) -> list[int]:
    """Return a list that grows with every pass through the attention of the first layer."""
    calls: list[int] = []
    first = stack_of(model).layer[0].attention
    first.register_forward_pre_hook(lambda module, args: calls.append(1))
    return calls


@pytest.mark.parametrize("top", [0, 1, 2])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", CACHED)
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
def test_logits_are_those_of_the_layers_themselves(
    kind: str, head: str, top: int, padded: bool
) -> None:
    model = build(kind, head, top)
    batch, other = make_batch((7, 3, 12)), make_batch((5, 9), seed=2)
    mixed = {name: torch.cat([batch[name][1:2, :5], other[name][:1, :5]]) for name in batch}
    expected = read(model, mixed).detach()
    unpadded = None if padded else unpad(model)
    calls = count_calls(model)
    fill(model, batch, other)
    logits = read(model, mixed)
    assert len(calls) == 2
    assert (unpadded is None) == padded
    assert torch.allclose(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("top", [0, 1])
def test_what_is_trained_gets_its_gradient(top: int) -> None:
    model, batch = build("bert", top=top), make_batch((7, 3))
    weights = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(read(model, batch).square().sum(), weights)
    fill(model, batch)
    gradients = torch.autograd.grad(read(model, batch).square().sum(), weights)
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


def test_texts_that_differ_in_their_segments_alone_are_two() -> None:
    model, batch = build("bert"), make_batch((6, 6))
    batch["input_ids"][1] = batch["input_ids"][0]
    batch["token_type_ids"] = torch.tensor([[0] * 6, [0, 0, 0, 1, 1, 1]])
    expected = read(model, batch).detach()
    fill(model, batch)
    logits = read(model, batch)
    assert torch.allclose(logits, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("fault", ["one key", "length alone", "no segments"])
def test_a_cache_with_wrong_keys_would_show(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = prefix_cache._text_keys

    def spoil(input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> list[bytes]:
        if fault == "no segments":
            return keys(input_ids, attention_mask)
        lengths = attention_mask.sum(1).tolist()
        return [bytes(length if fault == "length alone" else 1) for length in lengths]

    monkeypatch.setattr(prefix_cache, "_text_keys", spoil)
    model, batch = build("bert", top=1), make_batch((6, 6, 6))
    batch["input_ids"][1] = batch["input_ids"][0]
    batch["token_type_ids"] = torch.zeros(3, 6, dtype=torch.long)
    batch["token_type_ids"][1] = 1
    expected = read(model, batch).detach()
    fill(model, batch)
    assert not torch.allclose(read(model, batch), expected, rtol=0, atol=1e-3)


def test_a_text_that_is_new_is_computed() -> None:
    model, known, new = build("bert", top=1), make_batch((7, 3)), make_batch((4, 8), seed=3)
    expected = read(model, new).detach()
    fill(model, known)
    assert torch.equal(read(model, new), expected)
    mixed = {name: torch.cat([known[name][1:, :3], new[name][:1, :3]]) for name in known}
    read(model, known)
    assert read(model, mixed).isfinite().all()


def test_the_encoder_is_left_as_it_was() -> None:
    model, batch = build("bert"), make_batch((7, 3))
    expected = read(model, batch)
    calls = count_calls(model)
    cache = fill(model, batch)
    cache.end()
    assert torch.equal(read(model, batch), expected)
    assert len(calls) == 2
    assert not cache.outputs
    assert not any("forward" in vars(layer) for layer in stack_of(model).layer)


def test_too_much_is_not_cached_and_it_says_so(caplog: Any) -> None:
    model = build("bert", "TokenClassification")
    most = prefix_cache.MAX_BYTES // 4 // 16
    with caplog.at_level(logging.INFO):
        assert make_prefix_cache(model, model.frozen_prefix, 1, most + 1) is None
    assert "1024 MiB of outputs of frozen layers are too many to cache" in caplog.text
    assert make_prefix_cache(model, model.frozen_prefix, 1, most) is not None


@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
def test_where_no_layer_is_frozen_or_the_type_is_not_known_nothing_is_cached(kind: str) -> None:
    config = transformers.AutoConfig.for_model(kind, **SIZES)
    model: Any = transformers.AutoModelForSequenceClassification.from_config(config)
    if kind == "deberta-v2":
        model.base_model.requires_grad_(False)
    prefix = FrozenPrefix(model)
    assert prefix.layers == (3 if kind == "deberta-v2" else 0)
    assert make_prefix_cache(model, prefix, 1, 1) is None


@pytest.mark.parametrize(
    ("kind", "method", "switch"),
    [
        ("classification", "head_only", "cache"),
        ("tagging", "top_layers", "cache"),
        ("classification", "top_layers", "accelerate"),
        ("tagging", "head_only", "accelerate"),
    ],
)
def test_a_run_with_a_cache_ends_as_one_without(
    kind: str, method: str, switch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [f"method={method}", "trainer.max_epochs=3", "trainer.log_every_n_steps=1"]
    options += ["model.config.num_hidden_layers=3"]
    if switch == "accelerate":  # other dropout draws otherwise
        options += [f"+model.config.{name}=0.0" for name in ("hidden_dropout_prob",)]
        options += ["+model.config.attention_probs_dropout_prob=0.0"]
    cached = train(tiny_run(tmp_path / "cached", kind, *options))
    if switch == "cache":
        monkeypatch.setattr(accelerate, "make_prefix_cache", lambda *_: None)
    else:
        options.append("trainer.accelerate=false")
    computed = train(tiny_run(tmp_path / "computed", kind, *options))
    layers = {"head_only": 3, "top_layers": 1}[method]
    assert read_record(cached)["frozen_prefix"] == {"layers": layers, "cached": True}
    assert read_record(computed)["frozen_prefix"] == {"layers": layers, "cached": False}
    assert read_losses(cached) == pytest.approx(read_losses(computed), abs=1e-5)
    one, other = (read_weights(folder) for folder in (cached, computed))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        assert torch.allclose(weight, other[name], rtol=0, atol=1e-5), name
    rows, others = (
        pq.read_table(folder / "predictions.parquet").to_pylist() for folder in (cached, computed)
    )
    scores, other_scores = ([row.pop("score") for row in each] for each in (rows, others))
    assert rows == others
    assert scores == pytest.approx(other_scores, abs=1e-4)


def test_texts_that_are_read_once_are_not_cached(tmp_path: Path) -> None:
    options = ["method=head_only", "trainer.max_epochs=1"]
    folder = train(tiny_run(tmp_path, "classification", *options))
    assert read_record(folder)["frozen_prefix"] == {"layers": 1, "cached": False}


def test_a_method_that_says_nothing_of_frozen_layers_records_nothing(tmp_path: Path) -> None:
    folder = train(tiny_run(tmp_path, "classification", "method=lora", "trainer.max_steps=1"))
    assert "frozen_prefix" not in read_record(folder)


def read_record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text("utf-8"))


def read_losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
    losses = [json.loads(line).get("train/loss") for line in lines]
    return [loss for loss in losses if loss is not None]


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "adapter_model.safetensors")
