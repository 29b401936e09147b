"""Regression: one real number for a text or a pair of texts (similarity, readability).

The head has one output. It learns targets in standard deviations from their mean in train;
predictions have the unit of the labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from typing_extensions import override

from crosstune.data.windows import EncodedDataset
from crosstune.errors import DataError
from crosstune.tasks.metrics.correlation import CorrelationReport
from crosstune.tasks.sequence_classification import OneWindow, encode_texts, name_file
from crosstune.tasks.task import Batch, Predictions, Result, Row, Rows, Task, Tokenizer, run_metric


@dataclass
class Regression(OneWindow, Task):
    """The task of one data set: mean and standard deviation of the labels of train."""

    mean: float
    std: float
    labels: list[str] = field(default_factory=lambda: ["score"])  # one output

    @classmethod
    def from_rows(cls, rows: Rows) -> "Regression":
        """Return the task with the scale of the training rows that have a number."""
        faults = [f"{row['where']}: {f}" for row in rows if (f := _find_fault(row["label"]))]
        numbers = np.array([float(row["label"]) for row in rows if not _find_fault(row["label"])])
        if len(set(numbers)) < 2:
            raise DataError(
                faults or [f"{name_file(rows)}: train holds one number only, {numbers[0]}"]
            )
        return cls(float(numbers.mean()), float(numbers.std()))

    @property
    @override
    def metrics(self) -> tuple[str, ...]:
        return ("pearson", "spearman")  # in [-1, 1]

    @override
    def find_row_faults(self, row: Row) -> list[str]:
        fault = _find_fault(row["label"])
        return [fault] if fault else []

    @override
    def add_modules(self, model: PreTrainedModel) -> list[str]:
        """Save the scale in the model's config, for users of the model without crosstune."""
        model.config.problem_type = "regression"
        # label = label_mean + label_std * logit
        model.config.update({"label_mean": self.mean, "label_std": self.std})
        return []

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return one window a row, with the standardised number as its label."""
        numbers = np.array([float(row["label"]) for row in rows])
        return encode_texts(rows, (numbers - self.mean) / self.std, tokenizer, max_tokens)

    @override
    def collate(
        self, encoded: EncodedDataset, windows: Sequence[int], tokenizer: Tokenizer, seed: Any
    ) -> Batch:
        batch = super().collate(encoded, windows, tokenizer, seed)
        return {**batch, "labels": batch["labels"].float()}

    @override
    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed squared error of logits (B, 1) and the number of items."""
        logits, labels = model(**batch["inputs"]).logits, batch["labels"]
        counts = ~labels.isnan()
        errors = logits.float().squeeze(-1) - labels.where(counts, 0.0)
        return errors.square().where(counts, 0.0).sum(), counts.sum()

    @override
    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return the output of each window, which has no probability, also as its score."""
        outputs = model(**batch["inputs"]).logits.float().squeeze(-1).tolist()
        return list(zip(outputs, outputs, strict=True))

    @override
    def read_gold(self, row: Row) -> float:
        return float(row["label"])

    @override
    def decode_output(self, output: float) -> float:
        return self.mean + self.std * output

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        return run_metric(CorrelationReport(), predictions, device)


def _find_fault(label: str) -> str | None:
    try:
        finite = isfinite(float(label))
    except ValueError:
        finite = False
    if finite and "_" not in label:  # Python reads 1_5 as fifteen
        return None
    return f"label {label!r} is not a finite number such as 3.5"
