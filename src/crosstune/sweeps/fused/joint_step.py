"""One training step of several runs: their losses and gradients in one pass through the model.

What is trained is stacked and mapped over (`torch.func`), what is frozen is the same for all, and
each run gets its own loss and gradients: those of training it alone. Called by `company.py`.
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
from crosstune.sweeps.fused.hyperparameters import Place, differing, using
from crosstune.sweeps.fused.vmap_folding import VmapFolding
from crosstune.tasks import Task
from crosstune.tasks.task import sum_losses
from crosstune.training.checkpoint import seed_step
from crosstune.training.datamodule import PART_COSTS

MASKED = -30000.0  # added to the scores of padding: nothing is left of it, in bf16 neither
MOST_TOKENS = {"cpu": 4096}  # in a pass, padding included: above that a CPU's caches are too small
log = logging.getLogger(__name__)
BatchPart = tuple[int, int, int]  # first row, the row behind the last, the longest of them


class MemberBatch(NamedTuple):
    """What a run brings to a step: itself, and its batch in parts of like length."""

    task: Task
    model: nn.Module
    weights: dict[str, nn.Parameter]  # what it trains
    settings: dict[Place, float]
    parts: Sequence[dict[str, Any]]
    whole: bool  # there is one part, whose padding the model skips itself
    pad_id: int
    draw: tuple[int, int]  # seed and number of the batch: they decide what dropout drops


class MemberLoss(NamedTuple):
    """What a run gets: its summed loss, how many terms it has, and a gradient a trained weight."""

    total: Tensor
    terms: Tensor
    gradients: Sequence[Tensor | None]  # None: the loss does not depend on the weight


class JointStep:
    """Makes the steps of a group, together where that costs less than one by one."""

    def __init__(self) -> None:
        self.most_runs = sys.maxsize  # in a pass; less once memory has run out
        self.together = 0  # steps of runs that were made with others'
        self.alone = 0  # those that were cheaper alone

    def __call__(self, brought: Mapping[int, MemberBatch]) -> dict[int, MemberLoss]:
        """Return what every run gets; what dropout drops depends on all seeds and batches."""
        draws = [number for run in brought.values() for number in run.draw]
        seed_step(draws, _device_of(next(iter(brought.values()))))
        return dict(zip(brought, self._do(list(brought.values())), strict=True))

    def _do(self, runs: Sequence[MemberBatch]) -> list[MemberLoss]:
        device = _device_of(runs[0]).type
        cuts = cut_rows(runs, PART_COSTS[device])
        if len(runs) == 1 or not self.is_cheaper(runs, cuts, PART_COSTS[device]):
            self.alone += len(runs)
            return [_step_alone(run) for run in runs]
        tokens = len(runs) * max((end - start) * longest for start, end, longest in cuts)
        if len(runs) <= self.most_runs and tokens <= MOST_TOKENS.get(device, tokens):
            try:
                given = _step_together(runs, cuts)
                self.together += len(runs)
                return given
            except torch.OutOfMemoryError:
                self.most_runs = len(runs) // 2
                log.warning("out of memory: from now on %d runs in a pass", self.most_runs)
        half = len(runs) // 2
        return [*self._do(runs[:half]), *self._do(runs[half:])]

    def is_cheaper(
        self, runs: Sequence[MemberBatch], cuts: Sequence[BatchPart], part_cost: int
    ) -> bool:
        """Say whether one pass over the cuts of all runs costs less than what each does alone."""
        together = sum(len(runs) * (end - start) * wide + part_cost for start, end, wide in cuts)
        alone = 0
        for run in runs:
            for part in run.parts:
                own = part["lengths"]
                alone += (sum(own) if run.whole else len(own) * max(own)) + part_cost
        return together < alone


def cut_rows(runs: Sequence[MemberBatch], part_cost: int) -> list[BatchPart]:
    """Return how batches, sorted by length, are cut alike, so that padding costs little.

    A row is as long as the longest of any run in its place; shorter batches lack the first rows.
    """
    each = [sorted(_lengths_of(run)) for run in runs]
    rows = max(map(len, each))
    lengths = np.max([[0] * (rows - len(own)) + own for own in each], axis=0)
    parts = split_by_length(lengths, part_cost)
    return [(int(part[0]), int(part[-1]) + 1, int(lengths[part[-1]])) for part in parts]


def _lengths_of(run: MemberBatch) -> list[int]:
    return [length for part in run.parts for length in part["lengths"]]


def _device_of(run: MemberBatch) -> torch.device:
    return next(iter(run.weights.values())).device


def _step_alone(run: MemberBatch) -> MemberLoss:
    total, terms = sum_losses(run.task, run.model, run.parts)
    return MemberLoss(total.detach(), terms, _differentiate(total, list(run.weights.values())))


def _step_together(runs: Sequence[MemberBatch], cuts: Sequence[BatchPart]) -> list[MemberLoss]:
    task, model, device = runs[0].task, runs[0].model, _device_of(runs[0])

    def loss(weights: Any, settings: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        with using(model, settings):
            return task.loss(lambda **inputs: functional_call(model, weights, (), inputs), batch)

    varied = differing([run.settings for run in runs])
    settings = {place: torch.tensor(own, device=device) for place, own in varied.items()}
    weights = {
        name: torch.stack([run.weights[name].detach() for run in runs]).requires_grad_()
        for name in runs[0].weights
    }
    rows, longest = cuts[-1][1:]
    batches = [_unite(run, rows, longest) for run in runs]
    made: list[tuple[Tensor, Tensor, Sequence[Tensor | None]]] = []
    for cut in cuts:
        with VmapFolding():
            totals, terms = vmap(loss, randomness="different")(
                weights, settings, _take(batches, cut)
            )
        # at once: what the way back needs of one pass is gone before the next
        gradients = _differentiate(totals.sum(), list(weights.values()))
        made.append((totals.detach(), terms, gradients))
    totals, terms, gradients = zip(*made, strict=True)
    sums = [
        None if cut[0] is None else reduce(torch.add, cut) for cut in zip(*gradients, strict=True)
    ]
    totals, terms = reduce(torch.add, totals), reduce(torch.add, terms)
    return [
        MemberLoss(totals[n], terms[n], [None if g is None else g[n] for g in sums])
        for n in range(len(runs))
    ]


def _take(batches: Sequence[dict[str, Tensor]], cut: BatchPart) -> dict[str, Any]:
    """Return the rows of a cut of all runs, as a task's batch."""
    start, end, width = cut
    part = {name: torch.stack([own[name][start:end] for own in batches]) for name in batches[0]}
    part = {name: rows[..., :width] if rows.ndim > 2 else rows for name, rows in part.items()}
    labels = part.pop("labels")
    kept: Any = part["attention_mask"][:, :, None, None]
    mask = (1.0 - kept) * MASKED  # four dimensions: transformers leaves such a mask as it is
    return {"inputs": {**part, "attention_mask": mask}, "labels": labels}


def _unite(run: MemberBatch, rows: int, longest: int) -> dict[str, Tensor]:
    """Return the rows of all parts by length, equally wide, below as many empty ones as lack."""
    filling = {"input_ids": run.pad_id, "labels": IGNORE}
    batches = [{**part["inputs"], "labels": part["labels"]} for part in run.parts]
    lengths = _lengths_of(run)
    missing, order = rows - len(lengths), torch.from_numpy(np.argsort(lengths, kind="stable"))
    whole: dict[str, Tensor] = {}
    for name in batches[0]:
        fill = filling.get(name, 0)
        tensors = [batch[name] for batch in batches]
        if tensors[0].ndim > 1:
            tensors = [pad(t, (0, longest - t.shape[1]), value=fill) for t in tensors]
        empty = tensors[0].new_full((missing, *tensors[0].shape[1:]), fill)
        whole[name] = torch.cat([empty, torch.cat(tensors)[order.to(empty.device)]])
    return whole


def _differentiate(total: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor | None]:
    with torch.autocast(total.device.type, enabled=False):  # backward is as recorded
        return torch.autograd.grad(total, weights, allow_unused=True)
