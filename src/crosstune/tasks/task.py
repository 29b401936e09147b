"""What a task kind must offer, and what it gets for nothing.

A kind subclasses `Task` and writes what is its own; `tasks/__init__.py` maps kinds to classes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.data.windows import EncodedDataset
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.sequence_classification import collate_windows


class Task(Protocol):
    """One kind of task on one data set; made by the class method `from_rows(rows, **options)`.

    A row has `id`, `where`, `language` and what its reader gave it.
    """

    auto_class: ClassVar[str]  # the transformers class that puts the head on an encoder
    peft_type: ClassVar[str]  # peft's name for that head
    columns: ClassVar[tuple[str, ...]] = ()  # the `data.…` column options that the kind reads
    labels: list[str]  # of the head's outputs, in order

    @property
    def head_class(self) -> str:
        """Return the transformers class of the head that the options ask for."""
        return self.auto_class

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        ...

    @property
    def is_additive(self) -> bool:
        """Say whether the loss of a batch is the sum of the losses of its windows."""
        return True

    def undefined_metrics(self, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
        """Return those of `metrics` for which such rows hold no item."""
        return ()

    def labels_of(self, row: dict[str, Any]) -> list[str]:
        """Return the labels that a row carries; train must show each of them."""
        return []

    def faults_of(self, row: dict[str, Any]) -> list[str]:
        """Return what is wrong with a row for this kind, without its place."""
        return []

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""
        ...

    def leakage_texts(self, row: dict[str, Any]) -> list[str]:
        """Return the texts that must not stand in two splits: all of them, unless a kind says."""
        return self.texts_of(row)

    def on_missing_head_weights(self, place: str, lost: Sequence[str]) -> None:
        """Raise ConfigError, or say, what it means that the checkpoint lacks weights of the head.

        By default nothing: a head for new labels is new.
        """

    def extend(self, model: PreTrainedModel) -> list[str]:
        """Add to the model what the kind needs beside its head; return the new modules' names."""
        return []

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return rows as windows of sub-words."""
        ...

    def collate(
        self,
        encoded: EncodedDataset,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return `inputs` of the model and `labels`; `draw` seeds what is random in a batch.

        By default the windows as they are, padded, and the label of each.
        """
        return collate_windows(encoded, windows, tokenizer)

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of a batch and the number of terms in the sum.

        Labels of a batch that must not count are all IGNORE (NaN where they are real numbers).
        """
        ...

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return what the model says of each window of a batch, and its score."""
        ...

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction for each row that `outputs` speaks of."""
        ...

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return {"scores": …, "report": …} over the predictions of all ranks."""
        ...

    def tuned(self, report: dict[str, Any]) -> Self:
        """Return the task with what the best validation's report decided, for the test."""
        return self


def sum_losses(task: Task, model: Any, parts: Sequence[dict[str, Any]]) -> Any:
    """Return the summed loss of a batch that comes in parts, and the number of its terms."""
    total, count = task.loss(model, parts[0])
    for part in parts[1:]:
        more, terms = task.loss(model, part)
        total, count = total + more, count + terms
    return total, count
