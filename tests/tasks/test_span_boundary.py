"""What is asked of a span's boundary, and what the head leaves in a checkpoint."""

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    CONFIG_MAPPING,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
)

from crosstune.data.windows import IGNORE
from crosstune.tasks.span_boundary import (
    MAX_TARGETS,
    POSITION_WISE_HEADS,
    add_boundary,
    boundary_loss,
    find_targets,
    predict_masked,
)

SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
DISTIL = {"vocab_size": 50, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}


def tiny(kind="bert"):
    torch.manual_seed(0)
    sizes = DISTIL if kind == "distilbert" else {**SIZES, "embedding_size": 8}
    model = AutoModelForMaskedLM.from_config(CONFIG_MAPPING[kind](**sizes)).eval()
    model.get_output_embeddings().bias.data.normal_()
    return model


def batch():
    torch.manual_seed(1)
    ids = torch.randint(5, 50, (3, 12))
    real = torch.ones_like(ids)
    real[2, 8:] = 0
    masked = torch.zeros(3, 12, dtype=torch.bool)
    masked[0, 3:6] = masked[0, 8] = masked[2, 7] = True
    return {"input_ids": ids, "attention_mask": real}, masked


# --- scoring masked places only


@pytest.mark.parametrize("kind", POSITION_WISE_HEADS)
def test_scores_at_masked_places_are_those_of_the_whole_head(kind):
    model, (inputs, masked) = tiny(kind), batch()
    seen = predict_masked(model, inputs, masked)
    assert seen.logits.shape == (5, 50)
    assert torch.allclose(seen.logits, model(**inputs).logits[masked], atol=1e-6)


def test_a_kind_that_is_not_known_is_run_whole():
    model, (inputs, masked) = tiny(), batch()
    model.config.model_type = "foreign"
    seen = predict_masked(model, inputs, masked)
    assert seen.hidden is None
    assert torch.equal(seen.logits, model(**inputs).logits[masked])


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(task_type="FEATURE_EXTRACTION", target_modules=["query"]),
        PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=4),
    ],
    ids=["lora", "prompt"],
)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
def test_adapted_models_are_scored_at_masked_places_too(config):
    inputs, masked = batch()
    model = get_peft_model(tiny(), config).eval()
    whole = model(**inputs).logits[:, -masked.shape[1] :]
    assert torch.allclose(predict_masked(model, inputs, masked).logits, whole[masked], atol=1e-6)


def test_the_model_is_left_as_it_was():
    model, (inputs, masked) = tiny(), batch()
    predict_masked(model, inputs, masked)
    assert model(**inputs).logits.shape == (3, 12, 50)


def test_nothing_masked_gives_gradients_of_zero_to_every_weight():
    model, (inputs, masked) = tiny(), batch()
    predict_masked(model, inputs, torch.zeros_like(masked)).logits.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


# --- targets


def by_hand(masked, real):
    """Find targets one by one, as the paper words it."""
    found = []
    for row, marks in enumerate(masked.tolist()):
        start = None
        for column, mark in enumerate([*marks, False]):
            if mark and start is None:
                start = column
            if not mark and start is not None:
                inside = start > 0 and column < len(marks) and bool(real[row, column])
                places = range(start, column) if inside else ()
                found += [
                    (row, start - 1, column, i - start, i)
                    for i in places
                    if i - start < MAX_TARGETS
                ]
                start = None
    return found


def test_targets_are_those_found_one_by_one():
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        masked = torch.rand(4, 60, generator=generator) < 0.6
        masked[0] = True
        masked[0, [0, 40]] = False
        real = torch.ones_like(masked)
        real[1, 50:] = False
        masked &= real
        targets = [tuple(t) for t in torch.stack(find_targets(masked, real), dim=1).tolist()]
        assert targets == by_hand(masked, real)


def test_the_loss_is_that_of_the_formula():
    model, (inputs, masked) = tiny(), batch()
    add_boundary(model)
    head = model.span_boundary
    labels = torch.where(masked, inputs["input_ids"], IGNORE)
    hidden = model.bert(**inputs).last_hidden_state
    total = torch.tensor(0.0)
    for row, left, right, place, column in by_hand(masked, inputs["attention_mask"]):
        h0 = torch.cat([hidden[row, left], hidden[row, right], head.position.weight[place]])
        h1 = head.first_norm(torch.nn.functional.gelu(head.first(h0)))
        y = head.second_norm(torch.nn.functional.gelu(head.second(h1)))
        logits = model.bert.embeddings.word_embeddings.weight @ y + head.bias
        total = total - logits.log_softmax(-1)[labels[row, column]]
    seen = predict_masked(model, inputs, masked)
    loss = boundary_loss(model, seen, labels, inputs["attention_mask"])
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert len(by_hand(masked, inputs["attention_mask"])) == 4  # one span ends at padding


# --- the checkpoint


@pytest.fixture
def folder(tmp_path):
    model = tiny()
    add_boundary(model)
    model.save_pretrained(tmp_path)
    return tmp_path


def test_the_head_is_saved_and_taken_up_again(folder):
    saved = load_file(folder / "model.safetensors")
    again = AutoModelForMaskedLM.from_pretrained(folder)
    torch.manual_seed(9)
    add_boundary(again)
    for name, value in again.span_boundary.state_dict().items():
        assert torch.equal(value, saved[f"span_boundary.{name}"])


def test_without_a_folder_the_head_is_new():
    model = BertForMaskedLM(BertConfig(**SIZES))
    add_boundary(model)
    assert not model.span_boundary.bias.any()
    assert model.span_boundary.first.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_a_grown_vocabulary_keeps_what_was_learnt_of_the_old(folder):
    again = AutoModelForMaskedLM.from_pretrained(folder)
    again.resize_token_embeddings(60, mean_resizing=False)
    add_boundary(again)
    assert again.span_boundary.bias.shape == (60,)


def test_plain_transformers_loads_the_checkpoint_and_leaves_the_head(folder):
    plain, info = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not hasattr(plain, "span_boundary")
    inputs, _ = batch()
    assert torch.equal(plain.eval()(**inputs).logits, tiny()(**inputs).logits)


def test_the_checkpoint_can_be_tuned_for_another_kind(folder):
    tuned = AutoModelForSequenceClassification.from_pretrained(folder)
    assert {name for name, _ in tuned.named_children()} == {"bert", "dropout", "classifier"}
