"""A batch in parts of like length has the gradient of the whole batch, for every kind."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crosstune.data.length_groups import split_by_length
from crosstune.models.acceleration.unpad import unpad
from crosstune.models.load import load_model, load_tokenizer
from crosstune.tasks.task import sum_losses
from crosstune.training.batching import RankBatch, SplitBatchDataset
from crosstune.training.datamodule import FineTuningData
from crosstune.training.prepare import prepare
from tests.tiny import DATA, tiny_run

WITHOUT_DROPOUT = (
    "+model.config.hidden_dropout_prob=0.0",
    "+model.config.attention_probs_dropout_prob=0.0",
)
ALONE = 0  # a part costs nothing: windows of one length share a part, and no others
TOGETHER = 10**9


def loaded(tmp_path: Path, kind: str, *more: str) -> Any:
    run = tiny_run(tmp_path, kind, *WITHOUT_DROPOUT, *more)
    prepared = prepare(run)
    texts, content = prepared.tokenizer_texts()
    tokenizer = load_tokenizer(run.model, texts, content, tmp_path)
    torch.manual_seed(0)
    model = load_model(run.model, prepared.task, tokenizer, []).model.train()
    data = FineTuningData(prepared.splits, prepared.task, tokenizer, run.data, 1, tmp_path)
    (encoded,) = data.encoded["train"].values()
    return model, prepared.task, encoded, tokenizer


def gradient(model: Any, task: Any, parts: list[dict[str, Any]]) -> torch.Tensor:
    model.zero_grad()
    total, count = sum_losses(task, model, parts)
    (total / count).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("kind", DATA)
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_whole_batch(
    kind: str, tmp_path: Path
) -> None:
    model, task, encoded, tokenizer = loaded(tmp_path, kind)
    share = RankBatch(list(range(24)), 0, counted=True)
    split, whole = (
        SplitBatchDataset(encoded, task, tokenizer, 1, cost)[share]["parts"]
        for cost in (ALONE, TOGETHER)
    )
    assert len(split) > len(whole) == 1
    expected = gradient(model, task, whole)
    scale = max(gradient(model, task, [part]).norm() for part in split)  # parts may cancel out
    assert (gradient(model, task, split) - expected).abs().max() < 1e-6 * scale


@pytest.mark.parametrize("kind", DATA)
def test_so_is_the_gradient_of_a_batch_whose_padding_the_layers_do_not_see(
    kind: str, tmp_path: Path
) -> None:
    model, task, encoded, tokenizer = loaded(tmp_path, kind)
    share = RankBatch(list(range(24)), 0, counted=True)
    whole = SplitBatchDataset(encoded, task, tokenizer, 1, None)[share]["parts"]
    expected = gradient(model, task, whole)
    unpadded = unpad(model)
    assert (unpadded is None) == (kind == "masked_lm")
    assert (gradient(model, task, whole) - expected).abs().max() < 1e-6 * expected.norm()


def test_a_mean_over_parts_instead_of_windows_is_told(tmp_path: Path) -> None:
    model, task, encoded, tokenizer = loaded(tmp_path, "classification")
    share = RankBatch(list(range(24)), 0, counted=True)
    parts = SplitBatchDataset(encoded, task, tokenizer, 1, ALONE)[share]["parts"]
    expected = gradient(
        model, task, SplitBatchDataset(encoded, task, tokenizer, 1, TOGETHER)[share]["parts"]
    )
    each = [gradient(model, task, [part]) for part in parts]
    scale = max(one.norm() for one in each)
    assert (torch.stack(each).mean(0) - expected).abs().max() > 1e-6 * scale


def test_every_window_is_in_exactly_one_part(tmp_path: Path) -> None:
    _, task, encoded, tokenizer = loaded(tmp_path, "classification")
    share = RankBatch([3, 1, 4, 15, 9, 2], 0, counted=True)
    batch = SplitBatchDataset(encoded, task, tokenizer, 1, ALONE)[share]
    held = [part["inputs"]["attention_mask"].sum().item() for part in batch["parts"]]
    assert sum(held) == batch["tokens"] == encoded.lengths[share.windows].sum()
    assert batch["windows"] == share.windows


def price(lengths: np.ndarray, parts: Any, part_cost: int) -> int:
    return sum(len(part) * int(lengths[part].max()) + part_cost for part in parts)


@pytest.mark.parametrize("part_cost", [0, 5, 30, 500])
@pytest.mark.parametrize("seed", range(5))
def test_no_other_split_of_the_sorted_lengths_costs_less(seed: int, part_cost: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 60, 8)
    order = np.argsort(lengths)
    cheapest = min(
        price(lengths, np.split(order, cuts), part_cost)
        for number in range(len(order))
        for cuts in itertools.combinations(range(1, len(order)), number)
    )
    assert price(lengths, split_by_length(lengths, part_cost), part_cost) == cheapest
