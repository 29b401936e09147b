"""One training step of several runs: their losses and gradients from one pass through the model.

Trainable weights are stacked and mapped over (`torch.func.vmap`), frozen weights are shared. Each
run gets the loss and the gradients that it would have alone.
"""

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import pad

from crosstune.data.length_groups import split_by_length
from crosstune.data.windows import IGNORE
from crosstune.sweeps.fused.hyperparameters import (
    SettingKey,
    find_differences,
    override_settings,
)
from crosstune.sweeps.fused.vmap_folding import VmapFolding
from crosstune.tasks import Task
from crosstune.tasks.task import sum_losses
from crosstune.training.checkpoint import seed_step
from crosstune.training.datamodule import PART_COSTS

MASKED = -30000.0  # added to attention scores of padding: softmax gives exactly 0, in bf16 too
MAX_TOKENS = {"cpu": 4096}  # of a pass, padding included: more do not fit into a CPU's caches
log = logging.getLogger(__name__)
RowRange = tuple[int, int, int]  # start, end (exclusive), and the length of the longest row


class MemberBatch(NamedTuple):
    """The batch of one run at a step, in parts of similar length, with what the run trains."""

    task: Task
    model: nn.Module
    weights: dict[str, nn.Parameter]  # trainable
    settings: dict[SettingKey, float]
    parts: Sequence[dict[str, Any]]
    unpadded: bool  # one part, whose padding the model skips itself
    pad_id: int
    step_seed: tuple[int, int]  # seed of the run and index of the batch: they seed dropout


class MemberLoss(NamedTuple):
    """The summed loss of one run, its number of terms, and a gradient per trainable weight."""

    total: Tensor
    terms: Tensor
    gradients: Sequence[Tensor | None]  # None: the loss does not depend on the weight


class JointStep:
    """Makes the steps of a group, together where that costs less than one by one."""

    def __init__(self) -> None:
        self.max_runs = sys.maxsize  # in a pass; lowered when memory runs out
        self.together = 0  # counts the steps of runs made in a joint pass
        self.alone = 0  # counts those that were cheaper alone

    def __call__(self, batches: Mapping[int, MemberBatch]) -> dict[int, MemberLoss]:
        """Return the loss of every run; dropout depends on the seeds and batches of all."""
        seeds = [number for batch in batches.values() for number in batch.step_seed]
        seed_step(seeds, _device_of(next(iter(batches.values()))))
        return dict(zip(batches, self._step(list(batches.values())), strict=True))

    def _step(self, runs: Sequence[MemberBatch]) -> list[MemberLoss]:
        device = _device_of(runs[0]).type
        ranges = split_rows(runs, PART_COSTS[device])
        if len(runs) == 1 or not self.is_cheaper(runs, ranges, PART_COSTS[device]):
            self.alone += len(runs)
            return [_step_alone(run) for run in runs]
        tokens = len(runs) * max((end - start) * longest for start, end, longest in ranges)
        if len(runs) <= self.max_runs and tokens <= MAX_TOKENS.get(device, tokens):
            try:
                losses = _step_together(runs, ranges)
                self.together += len(runs)
                return losses
            except torch.OutOfMemoryError:
                self.max_runs = len(runs) // 2
                log.warning("out of memory: from now on %d runs in a pass", self.max_runs)
        half = len(runs) // 2
        return [*self._step(runs[:half]), *self._step(runs[half:])]

    def is_cheaper(
        self, runs: Sequence[MemberBatch], ranges: Sequence[RowRange], part_cost: int
    ) -> bool:
        """Return whether a joint pass processes fewer tokens than the runs do alone."""
        together = sum(
            len(runs) * (end - start) * width + part_cost for start, end, width in ranges
        )
        alone = 0
        for run in runs:
            for part in run.parts:
                lengths = part["lengths"]
                tokens = sum(lengths) if run.unpadded else len(lengths) * max(lengths)
                alone += tokens + part_cost
        return together < alone


def split_rows(runs: Sequence[MemberBatch], part_cost: int) -> list[RowRange]:
    """Split the batches of all runs, sorted by length, at the same rows with the least padding.

    The length of a row is the largest of any run; a smaller batch lacks the first, shortest rows.
    """
    lengths_by_run = [sorted(_lengths_of(run)) for run in runs]
    rows = max(map(len, lengths_by_run))
    lengths = np.max([[0] * (rows - len(each)) + each for each in lengths_by_run], axis=0)
    parts = split_by_length(lengths, part_cost)
    return [(int(part[0]), int(part[-1]) + 1, int(lengths[part[-1]])) for part in parts]


def _lengths_of(run: MemberBatch) -> list[int]:
    return [length for part in run.parts for length in part["lengths"]]


def _device_of(run: MemberBatch) -> torch.device:
    return next(iter(run.weights.values())).device


def _step_alone(run: MemberBatch) -> MemberLoss:
    total, terms = sum_losses(run.task, run.model, run.parts)
    return MemberLoss(total.detach(), terms, _differentiate(total, list(run.weights.values())))


def _step_together(runs: Sequence[MemberBatch], ranges: Sequence[RowRange]) -> list[MemberLoss]:
    task, model, device = runs[0].task, runs[0].model, _device_of(runs[0])

    def loss(weights: Any, settings: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        with override_settings(model, settings):
            return task.loss(lambda **inputs: functional_call(model, weights, (), inputs), batch)

    differences = find_differences([run.settings for run in runs])
    settings = {key: torch.tensor(values, device=device) for key, values in differences.items()}
    weights = {
        name: torch.stack([run.weights[name].detach() for run in runs]).requires_grad_()
        for name in runs[0].weights
    }
    rows, longest = ranges[-1][1:]
    batches = [_merge_parts(run, rows, longest) for run in runs]
    passes: list[tuple[Tensor, Tensor, Sequence[Tensor | None]]] = []
    for row_range in ranges:
        batch = _stack_rows(batches, row_range)
        with VmapFolding():
            totals, terms = vmap(loss, randomness="different")(weights, settings, batch)
        # backward at once, which frees the activations before the next pass
        gradients = _differentiate(totals.sum(), list(weights.values()))
        passes.append((totals.detach(), terms, gradients))
    totals, terms, gradients = zip(*passes, strict=True)
    sums = [
        None if column[0] is None else reduce(torch.add, column)
        for column in zip(*gradients, strict=True)
    ]
    totals, terms = reduce(torch.add, totals), reduce(torch.add, terms)
    return [
        MemberLoss(totals[n], terms[n], [None if g is None else g[n] for g in sums])
        for n in range(len(runs))
    ]


def _stack_rows(batches: Sequence[dict[str, Tensor]], row_range: RowRange) -> dict[str, Any]:
    """Stack these rows of all runs as a task's batch, tensors of (runs, rows, width)."""
    start, end, width = row_range
    part = {name: torch.stack([batch[name][start:end] for batch in batches]) for name in batches[0]}
    part = {name: rows[..., :width] if rows.ndim > 2 else rows for name, rows in part.items()}
    labels = part.pop("labels")
    attended: Any = part["attention_mask"][:, :, None, None]
    mask = (1.0 - attended) * MASKED  # transformers passes a mask of four dimensions on as it is
    return {"inputs": {**part, "attention_mask": mask}, "labels": labels}


def _merge_parts(run: MemberBatch, rows: int, longest: int) -> dict[str, Tensor]:
    """Return the rows of all parts, sorted by length, below empty ones that fill up to `rows`."""
    fill_values = {"input_ids": run.pad_id, "labels": IGNORE}
    parts = [{**part["inputs"], "labels": part["labels"]} for part in run.parts]
    lengths = _lengths_of(run)
    missing, order = rows - len(lengths), torch.from_numpy(np.argsort(lengths, kind="stable"))
    merged: dict[str, Tensor] = {}
    for name in parts[0]:
        fill = fill_values.get(name, 0)
        tensors = [part[name] for part in parts]
        if tensors[0].ndim > 1:
            tensors = [pad(t, (0, longest - t.shape[1]), value=fill) for t in tensors]
        empty = tensors[0].new_full((missing, *tensors[0].shape[1:]), fill)
        merged[name] = torch.cat([empty, torch.cat(tensors)[order.to(empty.device)]])
    return merged


def _differentiate(total: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor | None]:
    with torch.autocast(total.device.type, enabled=False):  # backward uses the recorded types
        return torch.autograd.grad(total, weights, allow_unused=True)
