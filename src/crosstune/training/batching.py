"""Samplers and data sets of batches: which windows, on which rank, in which order.

Training order depends on (seed, epoch) alone. A training batch is split into parts of similar
length, whose losses add up to that of the batch, so that padding costs little; unless the model
skips padding itself. Evaluation gives every item to exactly one rank and repeats none.
"""

from collections.abc import Iterator, Sequence
from math import nan
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from crosstune.data.length_groups import split_by_length
from crosstune.data.windows import IGNORE, EncodedDataset
from crosstune.tasks import Task


class RankBatch(NamedTuple):
    """One rank's part of a batch."""

    windows: list[int]
    epoch: int
    counted: bool  # False: a filler for a rank without windows; its labels are all ignored


class LanguageMixture(NamedTuple):
    """Draws languages with probability ∝ windows^(1 / temperature).

    Arivazhagan et al. 2019, https://arxiv.org/abs/1907.05019; temperature 1 takes each window once.
    """

    groups: list[np.ndarray]  # windows of each language
    temperature: float

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return as many windows as there are; none repeats before all of its language are used."""
        sizes = np.array([len(group) for group in self.groups], dtype=np.float64)
        rates = sizes ** (1 / self.temperature)
        ends = np.rint(np.cumsum(rates) / rates.sum() * sizes.sum()).astype(int)
        counts = np.diff(ends, prepend=0)
        parts = [
            np.concatenate([rng.permutation(group) for _ in range(-(-count // len(group)))])[:count]
            for group, count in zip(self.groups, counts, strict=True)
            if count
        ]
        return rng.permutation(np.concatenate(parts))


class TrainingSampler(Sampler[RankBatch]):
    """Uniform random batches; rank r takes the windows r, r + world, … of each."""

    def __init__(
        self,
        windows: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        mixture: LanguageMixture | None = None,
    ):
        self.windows, self.batch_size, self.seed = windows, batch_size, seed
        self.rank, self.world, self.mixture = rank, world, mixture
        self.epoch = 0
        self.start = 0  # first batch of the next iteration only: where a run resumes

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.windows // self.batch_size)

    def __iter__(self) -> Iterator[RankBatch]:
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = self.mixture.draw(rng) if self.mixture else rng.permutation(self.windows)
        first, self.start = self.start, 0
        for batch in self.cut(drawn)[first:]:
            share = batch[self.rank :: self.world]
            yield RankBatch(share or batch[:1], self.epoch, counted=bool(share))

    def cut(self, drawn: np.ndarray) -> list[list[int]]:
        """Cut windows in this order into batches."""
        starts = range(0, len(drawn), self.batch_size)
        return [drawn[start : start + self.batch_size].tolist() for start in starts]


class TokenBudgetSampler(TrainingSampler):
    """Random batches of about `batch_tokens` subwords each, whatever the number of windows.

    Every epoch has the same number of batches, cut at equal shares of its subwords. The fewer
    windows a batch has, the more each weighs in its step.
    """

    def __init__(self, lengths: np.ndarray, batch_tokens: int, **options: Any):
        batches = min(max(1, round(lengths.sum() / batch_tokens)), len(lengths))
        super().__init__(len(lengths), -(-len(lengths) // batches), **options)
        self.lengths, self.batches = lengths, batches

    def __len__(self) -> int:
        return self.batches

    def cut(self, drawn: np.ndarray) -> list[list[int]]:
        """Cut windows in this order into batches, none of them empty."""
        totals = np.cumsum(self.lengths[drawn], dtype=np.int64)
        number = np.arange(1, self.batches)
        ends = np.searchsorted(totals * self.batches, number * totals[-1], side="right")
        ends = np.maximum.accumulate(np.maximum(ends - number, 0)) + number
        ends = np.minimum(ends, len(drawn) - self.batches + number)
        return [part.tolist() for part in np.split(drawn, ends)]


class EvaluationSampler(Sampler[RankBatch]):
    """Every item on exactly one rank, the longest windows first."""

    def __init__(self, encoded: EncodedDataset, batch_size: int, rank: int = 0, world: int = 1):
        mine = np.flatnonzero(encoded.items % world == rank)
        order = mine[np.argsort(-encoded.lengths[mine], kind="stable")].tolist()
        self.shares = [
            RankBatch(order[start : start + batch_size], 0, counted=True)
            for start in range(0, len(order), batch_size)
        ] or [RankBatch([0], 0, counted=False)]

    def __len__(self) -> int:
        return len(self.shares)

    def __iter__(self) -> Iterator[RankBatch]:
        return iter(self.shares)


class BatchDataset(Dataset[dict[str, Any]]):
    """Batches of padded `inputs`, `labels`, `windows` and the number of their `tokens`."""

    def __init__(
        self,
        encoded: EncodedDataset,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        seed: int | None,
    ):
        self.encoded, self.task, self.tokenizer = encoded, task, tokenizer
        self.seed = seed  # None in evaluation, where random draws are always the same

    def __getitem__(self, share: RankBatch) -> dict[str, Any]:
        return {**self.collate(share, share.windows), **self.count(share)}

    def collate(self, share: RankBatch, windows: Sequence[int]) -> dict[str, Any]:
        """Return some windows of a share, collated by the task."""
        draw = (0, 0) if self.seed is None else (self.seed + 1, share.epoch)
        batch = self.task.collate(self.encoded, windows, self.tokenizer, draw)
        if "token_type_ids" not in self.tokenizer.model_input_names:
            del batch["inputs"]["token_type_ids"]
        if not share.counted:
            batch["labels"].fill_(nan if batch["labels"].is_floating_point() else IGNORE)
        return batch

    def count(self, share: RankBatch) -> dict[str, Any]:
        """Return the windows of a share that count, and the number of their subwords."""
        windows = share.windows if share.counted else []
        return {"windows": windows, "tokens": int(self.encoded.lengths[windows].sum())}


class SplitBatchDataset(BatchDataset):
    """Batches as `parts`: batches of windows of similar length, whose losses add up."""

    def __init__(
        self,
        encoded: EncodedDataset,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        part_cost: int | None,
    ):
        super().__init__(encoded, task, tokenizer, seed)
        self.part_cost = part_cost  # of a further part, in subwords; None: never split

    def __getitem__(self, share: RankBatch) -> dict[str, Any]:
        parts = [share.windows]
        if self.part_cost is not None:
            lengths = self.encoded.lengths[share.windows]
            split = split_by_length(lengths, self.part_cost)
            parts = [[share.windows[index] for index in part] for part in split]
        collated = [
            {**self.collate(share, part), "lengths": self.encoded.lengths[part].tolist()}
            for part in parts
        ]
        return {"parts": collated, **self.count(share)}
