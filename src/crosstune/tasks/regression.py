"""Regression: one real number for a text, or for a pair of texts (similarity, readability).

Head: transformers' sequence classification with one output. It learns targets in standard
deviations from their mean in train; predictions are given in the unit of the labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.data.windows import EncodedDataset
from crosstune.errors import DataError
from crosstune.tasks.metrics.correlation import CorrelationReport
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.sequence_classification import collate_windows, encode_texts, row_texts
from crosstune.tasks.task import Task


@dataclass
class Regression(Task):
    """The task of one data set: mean and standard deviation of the labels of train."""

    mean: float
    std: float
    labels: list[str] = field(default_factory=lambda: ["score"])  # one output
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "text_pair", "label")

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]]) -> "Regression":
        """Return the task with the scale of the training rows; those at fault wait for theirs."""
        numbers = np.array([float(row["label"]) for row in rows if not _fault_of(row["label"])])
        if len(set(numbers)) < 2:
            where = rows[0]["where"].rpartition(":")[0]
            faults = [f"{row['where']}: {f}" for row in rows if (f := _fault_of(row["label"]))]
            raise DataError(faults or [f"{where}: train holds one number only, {numbers[0]}"])
        return cls(float(numbers.mean()), float(numbers.std()))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives; they lie in [-1, 1]."""
        return ("pearson", "spearman")

    def faults_of(self, row: dict[str, Any]) -> list[str]:
        """Return what keeps a label from being a real number."""
        fault = _fault_of(row["label"])
        return [fault] if fault else []

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""
        return row_texts(row)

    def extend(self, model: PreTrainedModel) -> list[str]:
        """Let the saved model say what it is and in which unit it answers; add no module."""
        model.config.problem_type = "regression"
        # label = label_mean + label_std * logit, for those who load the model elsewhere
        model.config.update({"label_mean": self.mean, "label_std": self.std})
        return []

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return one window a row, the standardised number as its label."""
        numbers = np.array([float(row["label"]) for row in rows])
        return encode_texts(rows, (numbers - self.mean) / self.std, tokenizer, max_tokens)

    def collate(
        self,
        encoded: EncodedDataset,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return inputs (B, L) and labels (B,) in standard deviations."""
        batch = collate_windows(encoded, windows, tokenizer)
        return {**batch, "labels": batch["labels"].float()}

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed squared error of logits (B, 1) and the number of items."""
        logits, labels = model(**batch["inputs"]).logits, batch["labels"]
        counts = ~labels.isnan()
        errors = logits.float().squeeze(-1) - labels.where(counts, 0.0)
        return errors.square().where(counts, 0.0).sum(), counts.sum()

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return the output of each window, twice: as what it says and as its score.

        A number has no probability, so the score is the output as it is, in standard deviations.
        """
        outputs = model(**batch["inputs"]).logits.float().squeeze(-1).tolist()
        return list(zip(outputs, outputs, strict=True))

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row, in the unit of the labels."""
        return [
            Prediction(
                item,
                rows[item]["id"],
                float(rows[item]["label"]),
                self.mean + self.std * output,
                score,
            )
            for item, output, score in ((int(encoded.items[w]), o, s) for w, o, s in outputs)
        ]

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return correlations, and errors in the unit of the labels, exact over all ranks."""
        report = CorrelationReport().to(device)
        report.update([p.prediction for p in predictions], [p.gold for p in predictions])
        return report.compute()


def _fault_of(label: str) -> str | None:
    try:
        finite = isfinite(float(label))
    except ValueError:
        finite = False
    if finite and "_" not in label:  # Python reads 1_5 as fifteen
        return None
    return f"label {label!r} is not a finite number such as 3.5"
