"""AdaLoRA: the plan of the ranks, its penalty, and what is kept, restored and saved of it."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import transformers
from peft import AdaLoraConfig, LoraConfig, PeftModel, get_peft_model

from crosstune.config.compose import read_config
from crosstune.errors import ConfigError, RunError
from crosstune.logs import silence_libraries
from crosstune.methods import find_tuning_method
from crosstune.methods.adalora import AllocateRanks, scale_schedule
from crosstune.models.load import load_tokenizer
from crosstune.training.datamodule import FineTuningData
from crosstune.training.lightning_module import FineTuningModule
from crosstune.training.prepare import prepare
from crosstune.training.train import train
from tests.tiny import tiny_run

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys"),  # read as LoRA's
]
IDS = torch.arange(36).view(3, 12) % 45 + 3
MATRICES, TARGET, START = 4, 2, 4
QUICK = ("method=adalora", "trainer.log_every_n_steps=1", "optimizer.learning_rate=0.01")


def build(**options):
    """Return a tiny adapted classifier whose ranks all say something."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    given = {"init_r": START, "target_r": TARGET, "total_step": 100, "tinit": 15, "tfinal": 50}
    given |= {"target_modules": ["query", "value"], "task_type": "SEQ_CLS", **options}
    model = get_peft_model(
        transformers.BertForSequenceClassification(config), AdaLoraConfig(**given)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.5)
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def zero(model, kept):
    """Set singular values to zero, as masks do, and leave so many of each matrix."""
    values = [p for name, p in model.named_parameters() if "lora_E" in name]
    with torch.no_grad():
        for value, number in zip(values, kept, strict=True):
            value[number:] = 0.0
    model.peft_config["default"].rank_pattern = {"stale": [True]}


def ranks_of(folder: Path) -> list[int]:
    config = json.loads((folder / "model" / "adapter_config.json").read_text())
    return [sum(kept) for kept in config["rank_pattern"].values()]


# ---- the plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [3, 4, 5, 7, 10, 33, 1000])
@pytest.mark.parametrize("shares", [(15, 50), (0, 0), (0, 99), (90, 5), (49, 50)])
def test_a_plan_has_two_steps_before_the_last_allocation_and_one_behind_it(shares, steps):
    first, last = scale_schedule(*shares, 100, steps)
    assert 1 <= last <= steps - 2
    assert 0 <= first < steps - last


def test_a_plan_of_its_own_length_stays_as_it_is():
    assert scale_schedule(15, 50, 100, 100) == (15, 50)


# ---- the penalty ---------------------------------------------------------------------------------


def test_the_penalty_is_what_peft_adds_to_a_models_own_loss():
    model = build(orth_reg_weight=0.3)
    labels = torch.tensor([0, 1, 0])
    with torch.no_grad():
        output = model(input_ids=IDS, labels=labels)
        alone = torch.nn.functional.cross_entropy(output.logits, labels)
    torch.testing.assert_close(
        find_tuning_method(model).penalty(), output.loss - alone, atol=1e-6, rtol=1e-6
    )
    assert find_tuning_method(model).penalty() > 0.1


def test_orthogonal_factors_cost_nothing():
    model = build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.copy_(torch.eye(*parameter.shape))
            if "lora_B" in name:
                parameter.copy_(torch.eye(*parameter.shape))
    assert find_tuning_method(model).penalty().item() == 0.0


def test_other_methods_have_neither_penalty_nor_callback():
    model = get_peft_model(build().unload(), LoraConfig(task_type="SEQ_CLS"))
    assert (
        find_tuning_method(model).penalty()
        == find_tuning_method(model.get_base_model()).penalty()
        == 0.0
    )
    assert find_tuning_method(model).callbacks(SimpleNamespace(score=0.0)) == []


# ---- compacting and saving -----------------------------------------------------------------------


@pytest.mark.parametrize("kept", [(2, 2, 2, 2), (4, 3, 1, 0)])
def test_dropping_ranks_that_are_zero_changes_nothing_that_the_model_says(kept):
    model = build()
    zero(model, kept)
    before = logits(model)
    find_tuning_method(model).finish()
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-4)
    sizes = [len(p) for name, p in model.named_parameters() if "lora_E" in name]
    assert sizes == [max(1, number) for number in kept]


def test_a_rank_in_use_that_was_dropped_would_show():
    model = build()
    before = logits(model)
    zero(model, (3, 4, 4, 4))
    find_tuning_method(model).finish()
    assert not torch.allclose(logits(model), before, atol=1e-3)


def test_a_compact_adapter_reloads_to_the_last_bit(tmp_path):
    model = build()
    model.get_base_model().save_pretrained(tmp_path / "base")
    base = build().unload()
    zero(model, (4, 3, 1, 0))
    find_tuning_method(model).finish()
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))


def test_compacting_twice_is_compacting_once():
    model = build()
    zero(model, (4, 3, 1, 0))
    find_tuning_method(model).finish()
    before = logits(model)
    find_tuning_method(model).finish()
    assert torch.equal(logits(model), before)


def test_a_model_that_never_allocated_keeps_all_its_ranks():
    model = build()
    find_tuning_method(model).finish()
    assert {len(p) for name, p in model.named_parameters() if "lora_E" in name} == {START}


# ---- whole runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return train(tiny_run(tmp_path_factory.mktemp("run"), "tagging", *QUICK))


def read(folder, name="record.json"):
    return json.loads((folder / name).read_text())


def test_a_run_comes_down_to_the_budget_over_its_own_steps(folder):
    config = read(folder, "model/adapter_config.json")
    assert (config["total_step"], config["tinit"], config["tfinal"]) == (10, 2, 5)
    assert sum(ranks_of(folder)) == config["target_r"] * len(ranks_of(folder)) == 8 * 6


def test_the_best_checkpoint_is_one_of_the_last_budget(folder):
    assert read(folder)["best_step"] > 10 - 5


def test_the_saved_adapter_gives_the_scores_of_the_best_validation(folder):
    run = read_config(folder / "config.yaml")
    prepared, cache = prepare(run), Path(run.outputs) / ".cache"
    where = read(folder, "model/adapter_config.json")["base_model_name_or_path"]
    base = transformers.AutoModelForTokenClassification.from_pretrained(where)
    model = PeftModel.from_pretrained(base, folder / "model")
    tokenizer = load_tokenizer(run.model, *prepared.tokenizer_texts(), cache)
    data = FineTuningData(prepared.splits, prepared.task, tokenizer, run.data, 1, cache)
    learner = FineTuningModule(model, prepared.task, data, run)
    options = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", enable_progress_bar=False, **options)
    with silence_libraries():
        trainer.validate(learner, data, verbose=False)
    found = learner.results["validation"]["zh"].scores
    assert found == read(folder)["scores"]["validation"]["zh"]


def test_the_logged_loss_holds_no_penalty(tmp_path, folder):
    first = next(
        line["train/loss"]
        for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        if "train/loss" in line
    )
    more = ("method.peft.orth_reg_weight=50.0", "trainer.max_steps=3")
    heavy = train(tiny_run(tmp_path, "tagging", *QUICK, *more))
    lines = map(json.loads, (heavy / "metrics.jsonl").read_text().splitlines())
    assert first == pytest.approx(
        next(line["train/loss"] for line in lines if "train/loss" in line)
    )


def test_gradients_of_several_batches_make_one_allocation(tmp_path):
    more = ("trainer.accumulate_grad_batches=2", "trainer.max_epochs=4")
    config = read(train(tiny_run(tmp_path, "tagging", *QUICK, *more)), "model/adapter_config.json")
    assert config["total_step"] == 4 * 3
    assert sum(map(sum, config["rank_pattern"].values())) == 8 * 6


def test_languages_in_turn_share_the_ranks_of_the_first_stage(tmp_path):
    turns = ("data.in_turn=true", "data.further_languages=[es]")
    sources = [f"data.{split}={{zh: {split}, es: {split}}}" for split in ("train", "validation")]
    more = (*turns, *sources, "data.test={zh: test, es: test}")
    folder = train(tiny_run(tmp_path, "tagging", *QUICK, *more))
    assert sum(ranks_of(folder)) == 8 * 6
    assert len(read(folder)["stages"]) == 2


@pytest.mark.parametrize("steps", [1, 2])
def test_too_few_steps_keep_all_ranks_and_say_so(tmp_path, caplog, steps):
    run = tiny_run(tmp_path, "tagging", *QUICK, f"trainer.max_steps={steps}")
    with caplog.at_level(logging.WARNING):
        folder = train(run)
    assert f"{steps} steps are too few to allocate ranks" in caplog.text
    assert read(folder, "model/adapter_config.json")["rank_pattern"] is None


def test_three_steps_are_enough(tmp_path):
    assert sum(ranks_of(train(tiny_run(tmp_path, "tagging", *QUICK, "trainer.max_steps=3")))) == 48


def test_no_training_is_no_fault(tmp_path):
    run = tiny_run(tmp_path, "tagging", "method=adalora", "trainer.max_epochs=0")
    assert read(train(run))["status"] == "finished"


@pytest.mark.slow
def test_two_ranks_allocate_as_one_process_does(tmp_path):
    no_dropout = [
        f"+model.config.{name}_dropout_prob=0.0" for name in ("hidden", "attention_probs")
    ]
    more = (*QUICK, *no_dropout, "method.peft.lora_dropout=0.0", "trainer.accelerator=cpu")
    one = train(tiny_run(tmp_path / "one", "tagging", *more))
    two = train(tiny_run(tmp_path / "two", "tagging", "trainer=ddp", *more))
    pattern = [read(f, "model/adapter_config.json")["rank_pattern"] for f in (one, two)]
    assert pattern[0] == pattern[1]


# ---- what is refused -----------------------------------------------------------------------------


def test_early_stopping_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"trainer\.patience: AdaLoRA plans its ranks"):
        train(tiny_run(tmp_path, "tagging", *QUICK, "trainer.patience=1"))


def test_a_budget_that_is_no_reduction_is_refused():
    with pytest.raises(ConfigError, match="init_r=2: AdaLoRA comes down to target_r=2"):
        find_tuning_method(build(init_r=2)).callbacks(SimpleNamespace(score=0.0))


def test_more_ranks_in_use_than_the_budget_has_fail_the_run():
    (callback,) = find_tuning_method(build()).callbacks(SimpleNamespace(score=0.0))
    assert isinstance(callback, AllocateRanks)
    callback.active = True
    with pytest.raises(RunError, match="16 ranks in use after training, in a budget of 8"):
        callback.on_train_end(None, None)
