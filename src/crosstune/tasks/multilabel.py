"""Multi-label classification: any number of labels for a text or a pair, or none.

Head: transformers' sequence classification with one yes or no a label. `Classification.from_rows`
returns this task where `data.task.separator` says how a label cell is parted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.data.windows import IGNORE, EncodedDataset
from crosstune.errors import ConfigError, DataError
from crosstune.tasks.metrics.classes import LabelSetReport
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.sequence_classification import encode_texts, row_texts
from crosstune.tasks.task import Task


@dataclass
class MultiLabel(Task):
    """The task of one data set; `labels` are those of train, sorted.

    A row's `label` is a cell that `separator` parts ("joy,anger"), or a list of labels.
    """

    labels: list[str]
    separator: str
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "text_pair", "label")

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]], separator: str) -> "MultiLabel":
        """Return the task with the labels that the training rows carry."""
        if not isinstance(separator, str) or not separator:
            raise ConfigError(
                f"data.task.separator={separator!r}: give what stands between two labels of a "
                'cell, as in ",", or null where each text has one label.'
            )
        labels = sorted({label for row in rows for label in _parts(row, separator) if label})
        if not labels:
            where = rows[0]["where"].rpartition(":")[0]
            raise DataError([f"{where}: train holds no label"])
        return cls(labels, separator)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        return ("micro_f1", "macro_f1", "weighted_f1", "samples_f1", "jaccard", "accuracy")

    def labels_of(self, row: dict[str, Any]) -> list[str]:
        """Return the labels that a row carries, sorted."""
        return sorted(_parts(row, self.separator))

    def faults_of(self, row: dict[str, Any]) -> list[str]:
        """Return labels that are empty or given twice."""
        parts = _parts(row, self.separator)
        if not all(parts):
            return [f"label {row['label']!r} has an empty part between {self.separator!r}"]
        twice = sorted({part for part in parts if parts.count(part) > 1})
        return [f"label {part!r} stands twice in {row['label']!r}" for part in twice]

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""
        return row_texts(row)

    def extend(self, model: PreTrainedModel) -> list[str]:
        """Let the saved model say what it is; add no module."""
        model.config.problem_type = "multi_label_classification"
        return []

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return one window a row, labels (W, C) of 0 and 1."""
        sets = [set(_parts(row, self.separator)) for row in rows]
        labels = [[int(label in given) for label in self.labels] for given in sets]
        return encode_texts(rows, labels, tokenizer, max_tokens)

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed binary cross entropy of logits (B, C) and the number of its terms.

        Each label of each item is a term, so the mean is the loss of transformers.
        """
        logits, labels = model(**batch["inputs"]).logits.float(), batch["labels"]
        counts = labels != IGNORE
        terms = binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0).float(), reduction="none"
        )
        return terms.where(counts, 0.0).sum(), counts.sum()

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return the labels of each window with a probability above 1/2.

        Their score is the log-probability of just this set, labels taken as independent.
        """
        logits = model(**batch["inputs"]).logits.float()
        chosen = [row.nonzero().flatten().tolist() for row in logits > 0]
        return list(zip(chosen, logsigmoid(logits.abs()).sum(-1).tolist(), strict=True))

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row, as sorted lists of labels."""
        return [
            Prediction(
                item,
                rows[item]["id"],
                self.labels_of(rows[item]),
                [self.labels[number] for number in chosen],
                score,
            )
            for item, chosen, score in ((int(encoded.items[w]), c, s) for w, c, s in outputs)
        ]

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return scores and the report by label, exact over all ranks."""
        report = LabelSetReport(self.labels).to(device)
        report.update([p.prediction for p in predictions], [p.gold for p in predictions])
        return report.compute()


def _parts(row: dict[str, Any], separator: str) -> list[str]:
    """Return what stands in a label cell; nothing in an empty one."""
    if isinstance(row["label"], list):
        return [part.strip() for part in row["label"]]
    parts = [part.strip() for part in row["label"].split(separator)]
    return [] if parts == [""] else parts
