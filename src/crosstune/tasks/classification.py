"""Classification: one label for a text, or for a pair of texts.

Head: transformers' sequence classification. Each item is one window; what does not fit into
`data.max_tokens` is cut from the longer text, counted and reported. Texts with any number of
labels are `tasks/multilabel.py`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from transformers import PreTrainedTokenizerBase

from crosstune.data.windows import UNSEEN, EncodedDataset
from crosstune.errors import DataError
from crosstune.tasks.metrics.classes import ClassReport
from crosstune.tasks.multilabel import MultiLabel
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.sequence_classification import (
    decode_labels,
    encode_texts,
    label_loss,
    read_labels,
    row_texts,
)
from crosstune.tasks.task import Task


@dataclass
class Classification(Task):
    """The task of one data set; `labels` are those of train, sorted."""

    labels: list[str]
    correlation: bool = False  # Matthews correlation, in [-1, 1], stands among the scores
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "text_pair", "label")

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[dict[str, Any]],
        separator: str | None = None,
        correlation: bool = False,
    ) -> "Classification | MultiLabel":
        """Return the task with the labels that the training rows carry.

        `separator` stands between the labels of a cell and makes the task multi-label;
        `correlation` makes the Matthews correlation a score that can be the headline.
        """
        if separator is not None:
            return MultiLabel.from_rows(rows, separator)
        labels = sorted({row["label"] for row in rows})
        if len(labels) < 2:
            where = rows[0]["where"].rpartition(":")[0]
            raise DataError([f"{where}: train holds one label only, {labels[0]!r}"])
        return cls(labels, correlation)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        averages = ("macro_f1", "micro_f1", "weighted_f1", "macro_precision", "macro_recall")
        return ("accuracy", *averages, *(["mcc"] if self.correlation else []))

    def labels_of(self, row: dict[str, Any]) -> list[str]:
        """Return the labels that a row carries."""
        return [row["label"]]

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""
        return row_texts(row)

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return one window a row, the label's index as its label."""
        index = {label: number for number, label in enumerate(self.labels)}
        labels = [index.get(row["label"], UNSEEN) for row in rows]
        return encode_texts(rows, labels, tokenizer, max_tokens)

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy of logits (B, C) and the number of items."""
        return label_loss(model, batch)

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return the best label of each window and its log-probability."""
        return read_labels(model, batch)

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row, as label texts."""
        return decode_labels(rows, encoded, outputs, self.labels)

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return scores and the per-class report, exact over all ranks."""
        report = ClassReport(self.labels).to(device)
        index = {label: number for number, label in enumerate(self.labels)}
        best = [index[p.prediction] for p in predictions]
        gold = [index.get(p.gold, UNSEEN) for p in predictions]
        as_tensor = partial(torch.tensor, dtype=torch.long, device=device)
        report.update(as_tensor(best), as_tensor(gold))
        result = report.compute()
        if not self.correlation:
            result["report"]["mcc"] = result["scores"].pop("mcc")
        return result
