"""What the tasks share that give a whole text, or a pair of texts, one label or number.

One window a row: what does not fit into `data.max_tokens` is cut from the longer text and counted.
Head: transformers' sequence classification.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from crosstune.data.windows import IGNORE, UNSEEN, EncodedDataset, concatenate
from crosstune.errors import DataError
from crosstune.tasks.prediction import Prediction
from crosstune.tasks.task import Batch, Outputs, Row, Rows, Tokenizer


class OneWindow:
    """Mixin of tasks whose rows have one window each; defaults are those of one label per row."""

    labels: list[str]

    auto_class = "AutoModelForSequenceClassification"
    peft_type = "SEQ_CLS"
    columns = ("text", "text_pair", "label")

    def row_texts(self, row: Row) -> list[str]:
        """Return the texts of a row."""
        return [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]

    def read_gold(self, row: Row) -> Any:
        """Return the gold of a row as predictions give it."""
        return row["label"]

    def decode_output(self, output: Any) -> Any:
        """Return the prediction that an output of `predict_batch` stands for."""
        return self.labels[output]

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross-entropy and the number of labels."""
        return sum_cross_entropy(model(**batch["inputs"]).logits.float(), batch["labels"])

    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return the most probable label of each window and its log-probability."""
        return read_best(model(**batch["inputs"]).logits.float().log_softmax(-1))

    def decode(self, rows: Rows, encoded: EncodedDataset, outputs: Outputs) -> list[Prediction]:
        """Return the prediction of each row that has an output."""
        return [
            Prediction(
                item,
                rows[item]["id"],
                self.read_gold(rows[item]),
                self.decode_output(output),
                score,
            )
            for item, output, score in ((int(encoded.items[w]), o, s) for w, o, s in outputs)
        ]


def sum_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed cross entropy of logits (N, C) and the number of labels that count."""
    total = cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE)
    return total, (labels != IGNORE).sum()


def read_best(log_p: torch.Tensor) -> list[tuple[int, float]]:
    """Return the best label of each row of log-probabilities (B, C), and its log-probability."""
    scores, best = log_p.max(-1)
    return list(zip(best.tolist(), scores.tolist(), strict=True))


def train_labels(rows: Rows) -> list[str]:
    """Return the labels of the training rows, sorted.

    Raises:
        DataError: there is one label only.
    """
    labels = sorted({row["label"] for row in rows})
    if len(labels) < 2:
        raise DataError([f"{name_file(rows)}: train holds one label only, {labels[0]!r}"])
    return labels


def name_file(rows: Rows) -> str:
    """Return the file that the first row is from."""
    return rows[0]["where"].rpartition(":")[0]


def index_labels(labels: Sequence[str], golds: Sequence[str]) -> list[int]:
    """Return the index of each gold among the labels, UNSEEN for one that is not among them."""
    index = {label: number for number, label in enumerate(labels)}
    return [index.get(gold, UNSEEN) for gold in golds]


def encode_texts(rows: Rows, labels: Any, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
    """Return one window a row; `labels` has one entry a row."""
    second = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
    batch: Any = tokenizer(
        [row["text"] for row in rows],
        second,
        truncation="longest_first",
        max_length=max_tokens,
        return_token_type_ids=True,
        return_attention_mask=False,
        verbose=False,
    )
    cut = sum(bool(batch[number].overflowing) for number in range(len(rows)))
    return concatenate(batch["input_ids"], batch["token_type_ids"], range(len(rows)), labels, cut)
