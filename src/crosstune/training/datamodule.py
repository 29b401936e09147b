"""The one LightningDataModule, for every task and language.

Splits are encoded once and cached by content.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from crosstune.config.schema import Data
from crosstune.data.splits import Split, Splits, merge_languages
from crosstune.data.windows import EncodedDataset
from crosstune.errors import ConfigError
from crosstune.tasks import Task
from crosstune.training.batching import (
    BatchDataset,
    EvaluationSampler,
    LanguageMixture,
    RankBatch,
    SplitBatchDataset,
    TokenBudgetSampler,
    TrainingSampler,
)

CACHE_FORMAT = 4  # raise when the arrays of an encoded split change their meaning
# cost of a further part of a batch, in subwords: another pass through the model; measured on a CPU,
# estimated for the others
PART_COSTS = {"cpu": 48, "cuda": 8192, "mps": 8192}
log = logging.getLogger(__name__)


class FineTuningData(pl.LightningDataModule):
    """Loaders over encoded splits.

    Attributes:
        rows: split -> language -> rows; the key of train is the stage, such as `es+zh`.
        encoded: split -> language -> windows of subwords, with the same keys.
        stage: the languages trained on now.
    """

    def __init__(
        self,
        splits: Splits,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        data: Data,
        seed: int,
        cache: Path,
    ):
        super().__init__()
        self.task, self.tokenizer, self.data = task, tokenizer, data
        self.seed, self.cache = seed, cache  # the seed decides training order and masks
        self.keeps_batches_whole = False  # the model skips padding itself
        train = splits["train"]
        stages = {
            "+".join(stage): merge_languages({language: train[language] for language in stage})
            for stage in data.stages
        }
        splits = {**splits, "train": stages}
        self.stage = data.stages[0]
        self.rows = {
            name: {language: split.rows for language, split in languages.items()}
            for name, languages in splits.items()
        }
        self._check_metric()
        backend: Any = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        fingerprint = hashlib.sha256(backend.to_str().encode()).hexdigest()
        self.encoded = {
            name: {
                language: self._encode(f"{name}/{language}", split, fingerprint)
                for language, split in languages.items()
            }
            for name, languages in splits.items()
        }

    def _check_metric(self) -> None:
        """Raise ConfigError if validation has no item on which the headline metric is defined."""
        for language in self.data.train_languages:
            rows = self.rows["validation"][language]
            undefined = self.task.undefined_metrics(rows)
            if self.data.metric in undefined:
                source = rows[0]["where"].rpartition(":")[0]
                allowed = [metric for metric in self.task.metrics if metric not in undefined]
                raise ConfigError(
                    f"data.metric={self.data.metric}: {source} (validation, {language}) holds no "
                    f"item for it. Allowed there: {', '.join(allowed)}."
                )

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        name = "+".join(self.stage)
        encoded = self.encoded["train"][name]
        mixture = None
        if len(self.stage) > 1 and self.data.sampling_temperature != 1.0:
            languages = np.array([row["language"] for row in self.rows["train"][name]])
            groups = [np.flatnonzero(languages[encoded.items] == one) for one in self.stage]
            mixture = LanguageMixture(groups, self.data.sampling_temperature)
        trainer: Any = self.trainer
        options = {"seed": self.seed, "mixture": mixture}
        options |= {"rank": trainer.global_rank, "world": trainer.world_size}
        if self.data.batch_tokens is not None:
            sampler = TokenBudgetSampler(encoded.lengths, self.data.batch_tokens, **options)
        else:
            sampler = TrainingSampler(len(encoded), self.data.resolved_batch_size, **options)
        cost = None if self.keeps_batches_whole else PART_COSTS[trainer.strategy.root_device.type]
        batches = SplitBatchDataset(encoded, self.task, self.tokenizer, self.seed, cost)
        return self._loader(batches, sampler)

    @override
    def val_dataloader(self) -> list[DataLoader[Any]]:
        return self._evaluation_loaders("validation")

    @override
    def test_dataloader(self) -> list[DataLoader[Any]]:
        return self._evaluation_loaders("test")

    def iterate_train_and_validation(self) -> Iterator[dict[str, Any]]:
        """Yield all windows of the stage's training and validation, in evaluation's order."""
        for encoded in self._seen():
            batches = BatchDataset(encoded, self.task, self.tokenizer, None)
            yield from self._loader(
                batches, EvaluationSampler(encoded, self.data.resolved_batch_size)
            )

    def count(self) -> tuple[int, int]:
        """Return the numbers of windows and subwords that `iterate_train_and_validation` yields."""
        seen = self._seen()
        return sum(map(len, seen)), sum(int(encoded.lengths.sum()) for encoded in seen)

    def _seen(self) -> list[EncodedDataset]:
        return [self.encoded["train"]["+".join(self.stage)], *self.encoded["validation"].values()]

    def _evaluation_loaders(self, name: str) -> list[DataLoader[Any]]:
        trainer: Any = self.trainer
        world, rank = trainer.world_size, trainer.global_rank
        size = max(1, self.data.resolved_batch_size // world)
        return [
            self._loader(
                BatchDataset(encoded, self.task, self.tokenizer, None),
                EvaluationSampler(encoded, size, rank, world),
            )
            for encoded in self.encoded[name].values()
        ]

    def _encode(self, name: str, split: Split, fingerprint: str) -> EncodedDataset:
        rows = [{k: v for k, v in row.items() if k != "where"} for row in split.rows]
        parts = [CACHE_FORMAT, type(self.task).__name__, vars(self.task), self.data.max_tokens]
        content = json.dumps([*parts, fingerprint, rows], sort_keys=True)
        path = (
            self.cache / "encoded" / f"{hashlib.sha256(content.encode()).hexdigest()}.safetensors"
        )
        if (encoded := EncodedDataset.load(path)) is not None:
            log.info("%s: %d rows, encoded before", name, len(rows))
        else:
            encoded = self.task.encode(split.rows, self.tokenizer, self.data.max_tokens)
            encoded.write(path)
            log.info("%s: %d rows encoded as %d windows", name, len(rows), len(encoded))
            encoded = loaded if (loaded := EncodedDataset.load(path)) is not None else encoded
        if cut := int(encoded.cut[0]):
            limit = self.data.max_tokens
            log.warning("%s: %d of %d rows cut to %d sub-words", name, cut, len(rows), limit)
        return encoded

    def _loader(self, batches: BatchDataset, sampler: Sampler[RankBatch]) -> DataLoader[Any]:
        trainer: Any = self.trainer
        on_gpu = trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            batches,
            sampler=cast(Any, sampler),
            batch_size=None,
            # a loader draws a seed whenever it starts: with a generator of its own, dropout does
            # not depend on the number of loops over the data
            generator=torch.Generator(),
            pin_memory=on_gpu,
        )
