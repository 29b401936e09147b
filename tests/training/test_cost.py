"""What a run costs, held against closed formulas, other processes and runs without a meter."""

import json
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from crosstune.logs import silence_libraries
from crosstune.methods import adapt
from crosstune.models.load import load_model, load_tokenizer
from crosstune.reporting.records import COSTS
from crosstune.training import cost
from crosstune.training.checkpoint import ResumeCheckpoint
from crosstune.training.cost import (
    WARM_UP,
    CostMeter,
    Throughput,
    count_flops,
    count_parameters,
    get_device_name,
    measure_state,
)
from crosstune.training.datamodule import FineTuningData
from crosstune.training.lightning_module import FineTuningModule
from crosstune.training.prepare import prepare
from crosstune.training.train import fit_stage, train
from tests.tiny import tiny_run

HIDDEN, INNER, LAYERS, VOCABULARY = 32, 64, 2, 50
BATCH, LENGTH = 4, 16
CPU = torch.device("cpu")


def tiny_bert(head: Any = BertForSequenceClassification, attention="eager"):
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=INNER,
        max_position_embeddings=20,
    )
    return head._from_config(config, attn_implementation=attention).train()


TABLES = (VOCABULARY + 20 + 2) * HIDDEN  # of tokens, positions, segments


def test_embeddings_are_the_tables_of_tokens_positions_and_segments():
    counts = count_parameters(tiny_bert(), ["classifier"])
    assert counts["embedding_parameters"] == TABLES


def test_a_decoder_tied_to_the_embeddings_counts_with_them_and_once():
    model = tiny_bert(BertForMaskedLM)
    counts = count_parameters(model, [])
    assert counts["embedding_parameters"] == TABLES
    assert counts["total_parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(target_modules=["query"], modules_to_save=["classifier"]),
        LoraConfig(target_modules=["word_embeddings"], modules_to_save=["classifier"]),
        PromptTuningConfig(num_virtual_tokens=7, task_type="SEQ_CLS"),
    ],
    ids=["lora", "lora_on_embeddings", "prompts"],
)
def test_head_adapter_and_embeddings_are_apart(config):
    with silence_libraries():
        adapted = get_peft_model(tiny_bert(), config)
    counts = count_parameters(adapted, ["classifier"])
    assert counts["embedding_parameters"] == TABLES
    parts = counts["head_parameters"] + counts["adapter_parameters"]
    assert parts == counts["trainable_parameters"]


def test_a_new_pooler_is_counted_in_the_head_and_alone():
    model = tiny_bert()
    with_pooler = count_parameters(model, ["classifier", "bert.pooler"])
    without = count_parameters(model, ["classifier"])
    pooler = sum(p.numel() for p in model.bert.pooler.parameters())
    assert with_pooler["new_pooler_parameters"] == pooler
    assert with_pooler["head_parameters"] == without["head_parameters"] + pooler
    assert "new_pooler_parameters" not in without


@pytest.mark.parametrize(("optimizer", "numbers"), [(torch.optim.AdamW, 2), (torch.optim.SGD, 0)])
def test_optimizer_state_is_what_the_optimizer_holds(optimizer, numbers):
    layer = nn.Linear(10, 10)
    chosen = optimizer(layer.parameters(), lr=0.1)
    layer(torch.ones(10)).sum().backward()
    chosen.step()
    steps = 2 * 4 if numbers else 0  # AdamW counts the steps of each tensor, in four bytes
    assert measure_state(chosen) == numbers * 4 * 110 + steps


def batch():
    ids = torch.arange(BATCH * LENGTH).reshape(BATCH, LENGTH) % VOCABULARY
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def forward(model):
    return model(**batch(), labels=torch.zeros(BATCH, dtype=torch.long)).loss


def step(model):
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    torch.autograd.grad(forward(model), weights, allow_unused=True)


LINEAR = LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)  # weights of the layers
TOP = BATCH * (HIDDEN * HIDDEN + 2 * HIDDEN)  # of pooler and classifier, once a text
ATTENTION = LAYERS * BATCH * LENGTH * 2 * 2 * LENGTH * HIDDEN  # scores, and means by them
FORWARD = 2 * (BATCH * LENGTH * LINEAR + TOP)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_forward_is_two_operations_a_weight_and_token(attention):
    model = tiny_bert(attention=attention).eval()  # without dropout sdpa takes the fused kernel
    assert count_flops(partial(forward, model), CPU) == FORWARD + ATTENTION


def test_inference_mode_counts_the_same():
    model = tiny_bert(attention="sdpa").eval()
    with torch.inference_mode():
        assert count_flops(partial(forward, model), CPU) == FORWARD + ATTENTION


def test_full_fine_tuning_is_six_operations_a_weight_and_token():
    assert count_flops(partial(step, tiny_bert()), CPU) == 3 * (FORWARD + ATTENTION)


def test_a_frozen_base_is_about_four_operations_a_weight_and_token():
    model = tiny_bert()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.endswith("bias"))
    flops = count_flops(partial(step, model), CPU) - 3 * ATTENTION
    assert flops == pytest.approx(4 * LINEAR * BATCH * LENGTH, rel=0.05)


def test_a_forward_pass_alone_is_not_taken_for_a_step():
    assert count_flops(partial(forward, tiny_bert()), CPU) != 3 * (FORWARD + ATTENTION)


def test_counting_does_not_advance_the_rng():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    count_flops(lambda: torch.rand(99), CPU)
    assert torch.equal(torch.rand(3), expected)


def test_counting_leaves_no_gradient():
    model = tiny_bert()
    count_flops(partial(step, model), CPU)
    assert all(weight.grad is None for weight in model.parameters())


def weights_after(tmp_path, meter, *more):
    """Return the trained weights of a run with a given meter."""
    prepared = prepare(tiny_run(tmp_path, "classification", *more))
    run, task = prepared.run, prepared.task
    prepared.folder.mkdir(parents=True)
    pl.seed_everything(run.seed, verbose=False)
    tokenizer = load_tokenizer(run.model, *prepared.tokenizer_texts(), tmp_path)
    loaded = load_model(run.model, task, tokenizer, run.allow)
    with silence_libraries():
        model = adapt(loaded, run.method, task.peft_type, run.allow)
        data = FineTuningData(prepared.splits, task, tokenizer, run.data, run.seed, tmp_path)
        module = FineTuningModule(model, task, data, run)
        checkpoints = ResumeCheckpoint(prepared.folder, run, module.method)
        fit_stage(prepared, run.data.stages[0], module, (checkpoints, meter), [])
    return {name: value.clone() for name, value in module.state_dict().items()}


def check_unchanged(tmp_path, meter, *more):
    """Fail unless a run with a meter trains to the bit what a run without one trains."""
    bare = weights_after(tmp_path / "bare", pl.Callback(), *more)
    metered = weights_after(tmp_path / "metered", meter, *more)
    assert all(torch.equal(value, metered[name]) for name, value in bare.items())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_measuring_changes_no_bit_of_what_is_trained(tmp_path, method):
    check_unchanged(tmp_path, CostMeter(), f"method={method}", "trainer.max_steps=3")


class Careless(CostMeter):
    """Throws dice that the training would have thrown."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.rand(1)


class Lasting(CostMeter):
    """Leaves a trace in the weights."""

    def on_train_start(self, trainer, pl_module):
        for weight in pl_module.parameters():
            weight.data.add_(1e-7)


@pytest.mark.parametrize("bug", [Careless, Lasting])
def test_the_check_sees_a_meter_that_changes_the_training(tmp_path, bug):
    with pytest.raises(AssertionError):
        check_unchanged(tmp_path, bug(), "method=full", "trainer.max_steps=3")


MEASURE_PEAK = """
import gc
import sys
import torch
from crosstune.training import cost

collect = gc.collect
if sys.argv[1] == "keep":
    cost.release_memory = lambda: None
if sys.argv[1] == "cycle":
    cost.gc.collect = lambda: None
memory = cost.PeakMemory()
memory.start(torch.device("cpu"))
alone = memory.read()
earlier = [torch.ones(2**14) for _ in range(4000)]  # 250 MiB, too small pieces to be mapped apart
earlier.append(earlier)  # as a trainer and its model hold each other
pin = torch.ones(2**14)  # what came last stays, so that the heap cannot simply shrink
left = torch.ones(2**24)  # 64 MiB that no run frees, as the caches of libraries
weights = torch.ones(2**24)  # 64 MiB more that the run loaded before it started
del earlier
if sys.argv[1] == "inherit":
    cost.PeakMemory.first = None
memory = cost.PeakMemory()
memory.start(torch.device("cpu"), 0 if sys.argv[1] == "own" else 2**26)
del pin
collect()  # Python may do so at any time
more = [torch.ones(2**14) for _ in range(512)]  # 32 MiB
print((memory.read() - alone) / 2**20)
"""


def check_peak(bug):
    """Fail unless a run after a large one shows what it takes by itself."""
    command = [sys.executable, "-c", MEASURE_PEAK, bug]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 96 <= float(done.stdout) < 124


def test_a_large_run_before_does_not_stand_in_the_peak_of_a_small_one():
    check_peak("none")


@pytest.mark.parametrize("bug", ["keep", "cycle", "inherit", "own"])
def test_the_check_of_the_peak_sees_memory_of_an_earlier_run(bug):
    with pytest.raises(AssertionError):
        check_peak(bug)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on only when it is told to."""
    times = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: times[0])
    return times


def run_loop(clock, batches):
    """Return the pace of a loop whose first batches take ten seconds, and the others one."""
    pace = Throughput()
    pace.start(CPU)
    for number in range(batches):
        pace.count(tokens=100)
        clock[0] += 10 if number < WARM_UP else 1
    pace.stop()
    return pace


def test_the_warm_up_is_in_no_rate_but_in_the_seconds(clock):
    pace = run_loop(clock, WARM_UP + 4)
    assert (pace.tokens, pace.warm_seconds, pace.seconds) == (400, 4, 10 * WARM_UP + 4)


def test_without_a_warm_up_the_slow_batches_would_count(clock, monkeypatch):
    monkeypatch.setattr(cost, "WARM_UP", 0)
    assert run_loop(clock, WARM_UP + 4).warm_seconds == 10 * WARM_UP + 4


def test_a_loop_no_longer_than_its_warm_up_has_no_warm_seconds(clock):
    assert run_loop(clock, WARM_UP).warm_seconds == 0


def test_time_between_stop_and_start_counts_nowhere(clock):
    pace = run_loop(clock, WARM_UP + 1)
    clock[0] += 1000
    pace.start(CPU)
    clock[0] += 2
    pace.stop()
    assert pace.warm_seconds == 3


def test_a_processor_has_a_name():
    assert get_device_name(CPU).strip()


LONG = ("++data.reader.rows={train: 56, validation: 12, test: 56}", "trainer.max_epochs=1")


def costs_of(tmp_path, *more):
    folder = train(tiny_run(tmp_path, "classification", *more))
    return json.loads((folder / "record.json").read_text("utf-8"))["cost"], folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    return costs_of(tmp_path_factory.mktemp("lora"), "method=lora", *LONG)


def test_record_and_tables_have_the_same_costs(lora):
    costs, _ = lora
    assert set(costs) == set(COSTS)


def test_the_optimizer_of_a_run_holds_two_numbers_a_trained_parameter(lora):
    costs, folder = lora
    state = 8 * costs["trainable_parameters"]
    tensors = len(load_file(folder / "model" / "adapter_model.safetensors"))
    assert costs["optimizer_bytes"] == state + 4 * tensors


def test_full_fine_tuning_has_every_cost_but_an_adapter(tmp_path):
    costs, _ = costs_of(tmp_path, "method=full", *LONG)
    assert set(COSTS) - set(costs) == {"adapter_parameters"}


def test_a_run_that_ends_in_its_warm_up_has_no_rates(tmp_path):
    costs, _ = costs_of(tmp_path, "trainer.max_steps=2")
    rates = ("train_tokens_per_second", "inference_seconds", "inference_tokens_per_second")
    assert not set(rates) & set(costs)
    assert costs["train_seconds"] > 0


def test_a_run_that_trains_nothing_has_no_costs_of_training(tmp_path):
    costs, _ = costs_of(tmp_path, "trainer.max_epochs=0")
    assert not [name for name in costs if name.startswith(("train_", "optimizer"))]
    assert costs["inference_flops_per_token"] > 0
