"""Which windows make a batch, on which rank, in which order; and the batch itself.

Training order is a function of (seed, epoch) alone: uniform random batches. A batch is cut into
parts of like length whose losses add up, so that padding costs little and changes nothing, unless
the model skips padding itself (`unpadding.py`). Evaluation gives every item to exactly one rank,
longest windows together, and pads no share with repeats. Called by `data/module.py`.
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

POOL = 50  # batches whose windows are sorted together where batches are bucketed


class RankBatch(NamedTuple):
    """One rank's part of a batch."""

    windows: list[int]
    epoch: int
    counted: bool  # False: a stand-in where the rank has no part; its labels are all ignored


class LanguageMixture(NamedTuple):
    """Languages drawn with probability ∝ windows^(1 / temperature), however many each has.

    Arivazhagan et al. 2019, https://arxiv.org/abs/1907.05019; temperature 1 takes each window once.
    """

    groups: list[np.ndarray]  # windows of each language
    temperature: float

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return as many windows as there are, a language's all used before one comes again."""
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
    """Uniform random batches; rank r takes every world-th window of each from place r."""

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
        self.start = 0  # batch that comes first, once: where a run that was stopped goes on

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.windows // self.batch_size)

    def __iter__(self) -> Iterator[RankBatch]:
        rng = np.random.default_rng([self.seed, self.epoch])
        drawn = self.mixture.draw(rng) if self.mixture else rng.permutation(self.windows)
        first, self.start = self.start, 0
        for batch in self.cut(drawn, rng)[first:]:
            share = batch[self.rank :: self.world]
            yield RankBatch(share or batch[:1], self.epoch, counted=bool(share))

    def cut(self, drawn: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
        """Return the batches of windows that come in this order."""
        starts = range(0, len(drawn), self.batch_size)
        return [drawn[start : start + self.batch_size].tolist() for start in starts]


class BucketedSampler(TrainingSampler):
    """Batches of like length: POOL batches at a time are sorted, then all batches shuffled.

    Less padding, but no batch is a fair sample of the data any more.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        mixture: LanguageMixture | None = None,
    ):
        super().__init__(len(lengths), batch_size, seed, rank, world, mixture)
        self.lengths = lengths

    def cut(self, drawn: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
        """Return the batches of windows that come in this order."""
        size = POOL * self.batch_size
        pools = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        by_length = [pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools]
        batches = [
            batch for pool in by_length for batch in super(BucketedSampler, self).cut(pool, rng)
        ]
        return [batches[place] for place in rng.permutation(len(batches))]


class TokenBudgetSampler(TrainingSampler):
    """Random batches of about so many sub-words, however many windows that are.

    Every epoch has as many batches, cut at equal shares of its sub-words. A text weighs the more in
    a step, the fewer its batch holds.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_tokens: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        mixture: LanguageMixture | None = None,
    ):
        batches = min(max(1, round(lengths.sum() / batch_tokens)), len(lengths))
        super().__init__(len(lengths), -(-len(lengths) // batches), seed, rank, world, mixture)
        self.lengths, self.batches = lengths, batches

    def __len__(self) -> int:
        return self.batches

    def cut(self, drawn: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
        """Return the batches of windows that come in this order; none is empty."""
        through = np.cumsum(self.lengths[drawn], dtype=np.int64)
        number = np.arange(1, self.batches)
        ends = np.searchsorted(through * self.batches, number * through[-1], side="right")
        ends = np.maximum.accumulate(np.maximum(ends - number, 0)) + number
        ends = np.minimum(ends, len(drawn) - self.batches + number)
        return [part.tolist() for part in np.split(drawn, ends)]


class EvaluationSampler(Sampler[RankBatch]):
    """Every item once over all ranks, windows of like length together."""

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
    """The batch of a share: padded `inputs`, `labels`, which windows, how many sub-words."""

    def __init__(
        self,
        encoded: EncodedDataset,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        seed: int | None,
    ):
        self.encoded, self.task, self.tokenizer = encoded, task, tokenizer
        self.seed = seed  # None: evaluation, whose draws never change

    def __getitem__(self, share: RankBatch) -> dict[str, Any]:
        return {**self.collate(share, share.windows), **self.facts_of(share)}

    def collate(self, share: RankBatch, chosen: Sequence[int]) -> dict[str, Any]:
        """Return the chosen windows of a share as the task wants them."""
        draw = (0, 0) if self.seed is None else (self.seed + 1, share.epoch)
        batch = self.task.collate(self.encoded, chosen, self.tokenizer, draw)
        if "token_type_ids" not in self.tokenizer.model_input_names:
            del batch["inputs"]["token_type_ids"]
        if not share.counted:
            batch["labels"].fill_(nan if batch["labels"].is_floating_point() else IGNORE)
        return batch

    def facts_of(self, share: RankBatch) -> dict[str, Any]:
        """Return which windows of a share count, and their sub-words."""
        windows = share.windows if share.counted else []
        return {"windows": windows, "tokens": int(self.encoded.lengths[windows].sum())}


class SplitBatchDataset(BatchDataset):
    """The batch of a share as `parts`: batches of like length, whose losses are to be added up."""

    def __init__(
        self,
        encoded: EncodedDataset,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        part_cost: int | None,
    ):
        super().__init__(encoded, task, tokenizer, seed)
        self.part_cost = part_cost  # in sub-words; None: the batch stays whole

    def __getitem__(self, share: RankBatch) -> dict[str, Any]:
        parts = [share.windows]
        if self.part_cost is not None:
            lengths = self.encoded.lengths[share.windows]
            split = split_by_length(lengths, self.part_cost)
            parts = [[share.windows[place] for place in part] for part in split]
        collated = [
            {**self.collate(share, part), "lengths": self.encoded.lengths[part].tolist()}
            for part in parts
        ]
        return {"parts": collated, **self.facts_of(share)}
