"""Classification of a text or a pair of texts: one label, or any number of labels.

`MultiLabel` is the task where `data.task.separator` says how a label cell is split.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from transformers import PreTrainedModel
from typing_extensions import override

from crosstune.data.windows import IGNORE, EncodedDataset
from crosstune.errors import ConfigError, DataError
from crosstune.tasks.metrics.classes import (
    MACRO_F1_ALL,
    MEANS,
    LabelSetReport,
    add_unseen,
    report_classes,
)
from crosstune.tasks.prediction import Prediction
from crosstune.tasks.sequence_classification import (
    OneWindow,
    encode_texts,
    index_labels,
    name_file,
    train_labels,
)
from crosstune.tasks.task import Batch, Predictions, Result, Row, Rows, Task, Tokenizer, run_metric


@dataclass
class Classification(OneWindow, Task):
    """The task of one data set; `labels` are those of train, sorted."""

    labels: list[str]
    correlation: bool = False  # whether Matthews correlation, in [-1, 1], is among the scores

    @classmethod
    def from_rows(
        cls, rows: Rows, separator: str | None = None, correlation: bool = False
    ) -> "Classification | MultiLabel":
        """Return the task with the labels of the training rows.

        `separator` is what stands between the labels of a cell and makes the task multi-label;
        `correlation` makes Matthews correlation a score that can be the headline.
        """
        if separator is not None:
            return MultiLabel.from_rows(rows, separator)
        return cls(train_labels(rows), correlation)

    @property
    @override
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", *MEANS, MACRO_F1_ALL, *(["mcc"] if self.correlation else []))

    @override
    def row_labels(self, row: Row) -> list[str]:
        return [row["label"]]

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        labels = index_labels(self.labels, [row["label"] for row in rows])
        return encode_texts(rows, labels, tokenizer, max_tokens)

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        result = report_classes(
            self.labels, [p.prediction for p in predictions], [p.gold for p in predictions], device
        )
        if self.correlation:
            result["scores"]["mcc"] = result["report"].pop("mcc")
        return result


@dataclass
class MultiLabel(OneWindow, Task):
    """Any number of labels a row; `labels` are those of train, sorted.

    The label of a row is a cell split by `separator` ("joy,anger"), or a list of labels.
    """

    labels: list[str]
    separator: str

    @classmethod
    def from_rows(cls, rows: Rows, separator: str) -> "MultiLabel":
        """Return the task with the labels of the training rows."""
        if not isinstance(separator, str) or not separator:
            raise ConfigError(
                f"data.task.separator={separator!r}: give what stands between two labels of a "
                'cell, as in ",", or null where each text has one label.'
            )
        labels = sorted({label for row in rows for label in _split(row, separator) if label})
        if not labels:
            raise DataError([f"{name_file(rows)}: train holds no label"])
        return cls(labels, separator)

    @property
    @override
    def metrics(self) -> tuple[str, ...]:
        means = ("micro_f1", "macro_f1", "weighted_f1", "samples_f1", MACRO_F1_ALL)
        return (*means, "jaccard", "accuracy")

    @override
    def row_labels(self, row: Row) -> list[str]:
        return sorted(_split(row, self.separator))

    @override
    def predict_majority(self, train: Rows, predictions: Predictions) -> list[Prediction]:
        return []  # the most frequent set is no measure of chance

    @override
    def find_row_faults(self, row: Row) -> list[str]:
        labels = _split(row, self.separator)
        if not all(labels):
            return [f"label {row['label']!r} has an empty part between {self.separator!r}"]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        return [f"label {label!r} stands twice in {row['label']!r}" for label in twice]

    @override
    def add_modules(self, model: PreTrainedModel) -> list[str]:
        model.config.problem_type = "multi_label_classification"  # saved with the model
        return []

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return one window a row, with labels (W, C) of 0 and 1."""
        sets = [set(_split(row, self.separator)) for row in rows]
        labels = [[int(label in present) for label in self.labels] for present in sets]
        return encode_texts(rows, labels, tokenizer, max_tokens)

    @override
    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed binary cross entropy of logits (B, C) and the number of its terms.

        Each label of each item is a term, so the mean is the loss of transformers.
        """
        logits, labels = model(**batch["inputs"]).logits.float(), batch["labels"]
        counts = labels != IGNORE
        terms = binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0).float(), reduction="none"
        )
        return terms.where(counts, 0.0).sum(), counts.sum()

    @override
    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return the labels with a probability above 1/2, and the log-probability of this set.

        Labels are taken as independent.
        """
        logits = model(**batch["inputs"]).logits.float()
        predicted = [row.nonzero().flatten().tolist() for row in logits > 0]
        return list(zip(predicted, logsigmoid(logits.abs()).sum(-1).tolist(), strict=True))

    @override
    def read_gold(self, row: Row) -> list[str]:
        return self.row_labels(row)

    @override
    def decode_output(self, output: list[int]) -> list[str]:
        return [self.labels[number] for number in output]

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        labels = add_unseen(self.labels, (label for p in predictions for label in p.gold))
        return run_metric(LabelSetReport(labels), predictions, device)


def _split(row: Row, separator: str) -> list[str]:
    """Return the labels in a cell; none in an empty one."""
    if isinstance(row["label"], list):
        return [label.strip() for label in row["label"]]
    labels = [label.strip() for label in row["label"].split(separator)]
    return [] if labels == [""] else labels
