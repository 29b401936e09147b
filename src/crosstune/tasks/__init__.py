"""The task kinds: what each must offer, and the literal map from kind to class.

Adding a kind means one file here, one member of `schema.Kind` and one entry of `TASKS`. Nothing
outside this folder branches on the kind.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from crosstune.data.encoded import Encoded
from crosstune.schema import Kind
from crosstune.tasks.classification import Classification
from crosstune.tasks.masked_lm import MaskedLM
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.tagging import Tagging


class Task(Protocol):
    """One kind of task on one data set."""

    auto_class: ClassVar[str]  # the transformers class that puts the head on an encoder
    peft_type: ClassVar[str]  # peft's name for that head
    columns: ClassVar[tuple[str, ...]]  # the `data.…` column options that the kind reads

    @property
    def labels(self) -> list[str]:
        """Labels of the head's outputs, in order."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        ...

    def labels_of(self, row: dict[str, Any]) -> list[str]:
        """Return the labels that a row carries."""
        ...

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row."""
        ...

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> Encoded:
        """Return rows as windows of sub-words."""
        ...

    def collate(
        self,
        encoded: Encoded,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return `inputs` of the model and `labels` for a batch of windows."""
        ...

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss and the number of terms in the sum."""
        ...

    def read_off(self, logits: torch.Tensor, labels: torch.Tensor) -> list[tuple[Any, float]]:
        """Return what each window of a batch says, and its score."""
        ...

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: Encoded, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction for each row that `outputs` speaks of."""
        ...

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return {"scores": …, "report": …} over the predictions of all ranks."""
        ...


TASKS: dict[Kind, type[Classification] | type[Tagging] | type[MaskedLM]] = {
    Kind.classification: Classification,
    Kind.tagging: Tagging,
    Kind.masked_lm: MaskedLM,
}
