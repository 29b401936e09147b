"""The base class of all task types: what a task must define, and the defaults it inherits.

A task type is one subclass in a file of its own; `tasks/__init__.py` maps task types to classes.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torchmetrics import Metric
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.data.windows import EncodedDataset
from crosstune.tasks.prediction import Output, Prediction

Row = dict[str, Any]
Rows = Sequence[Row]
Outputs = Sequence[Output]
Predictions = Sequence[Prediction]
Result = dict[str, Any]  # {"scores": {metric: value}, "report": {...}}
Batch = dict[str, Any]
Tokenizer = PreTrainedTokenizerBase


class Task(ABC):
    """One task on one data set, made by the class method `from_rows(training_rows, **options)`.

    A row has `id`, `where` (file and line), `language` and the fields that its reader sets.
    """

    auto_class: ClassVar[str]  # the transformers class that adds the head to an encoder
    peft_type: ClassVar[str]  # peft's name for that head
    columns: ClassVar[tuple[str, ...]] = ()  # the `data.…` column options that the task type reads
    labels: list[str]  # of the head's outputs, in order

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `compute_metrics` returns."""

    def undefined_metrics(self, rows: Rows) -> tuple[str, ...]:
        """Return those of `metrics` that cannot be computed on these rows."""
        return ()

    def row_labels(self, row: Row) -> list[str]:
        """Return the labels of a row; train must contain each of them."""
        return []

    def find_row_faults(self, row: Row) -> list[str]:
        """Return what is wrong with a row for this task type, without file and line."""
        return []

    @abstractmethod
    def row_texts(self, row: Row) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""

    def leakage_texts(self, row: Row) -> list[str]:
        """Return the texts that must not occur in two splits: all of them by default."""
        return self.row_texts(row)

    def on_missing_head_weights(  # noqa: B027 - a hook; most tasks need none
        self, source: str, missing: Sequence[str]
    ) -> None:
        """Handle a checkpoint that lacks weights of the head; a ConfigError refuses it.

        Does nothing by default: a head for new labels is new.
        """

    def add_modules(self, model: PreTrainedModel) -> list[str]:
        """Add the modules that the task needs besides its head; return their names."""
        return []

    @abstractmethod
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return rows as windows of at most `max_tokens` sub-words."""

    def collate(
        self, encoded: EncodedDataset, windows: Sequence[int], tokenizer: Tokenizer, seed: Any
    ) -> Batch:
        """Return `inputs` of the model, each (B, L), and `labels`, one a window by default.

        `seed` is a sequence of integers: the seed of everything random in a batch.
        """
        pad_id: Any = tokenizer.pad_token_id
        labels = torch.from_numpy(encoded.labels[list(windows)])
        return {"inputs": encoded.pad(windows, pad_id), "labels": labels}

    @abstractmethod
    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of a batch and the number of terms in the sum.

        The labels of a batch that must not count are all IGNORE (NaN for real numbers).
        """

    @abstractmethod
    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return the model's prediction for each window of a batch, and its score."""

    @abstractmethod
    def decode(self, rows: Rows, encoded: EncodedDataset, outputs: Outputs) -> list[Prediction]:
        """Return one prediction for each row that has outputs."""

    @abstractmethod
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        """Return scores and report over the predictions of all ranks."""

    def item_scores(self, prediction: Prediction) -> dict[str, float]:
        """Return scores of a single item whose mean over items is the score of the split."""
        return {}

    def predict_majority(self, train: Rows, predictions: Predictions) -> list[Prediction]:
        """Return, for the same items, what is predicted with train's label counts alone.

        The most frequent label by default; empty where train's rows do not carry one label each.
        """
        labels = [self.row_labels(row) for row in train]
        if not labels or any(len(of_row) != 1 for of_row in labels):
            return []
        majority = Counter(label for (label,) in labels).most_common(1)[0][0]
        return [item._replace(prediction=majority) for item in predictions]

    def list_answers(self, prediction: Prediction) -> list[str]:
        """Return the answers in a prediction: one, or one for each word."""
        return [str(prediction.prediction)]

    def prepare_for_test(self, report: dict[str, Any]) -> Self:
        """Return the task to test with, given the report of the best validation."""
        return self


def run_metric(metric: Metric, predictions: Predictions, device: torch.device) -> Result:
    """Return what a new metric computes over the predictions of all ranks."""
    metric = metric.to(device)
    metric.update([p.prediction for p in predictions], [p.gold for p in predictions])
    return metric.compute()


def sum_losses(task: Task, model: Any, parts: Sequence[Batch]) -> Any:
    """Return the summed loss of a batch that is split into parts, and the number of its terms."""
    total, count = task.loss(model, parts[0])
    for part in parts[1:]:
        part_total, part_count = task.loss(model, part)
        total, count = total + part_total, count + part_count
    return total, count
