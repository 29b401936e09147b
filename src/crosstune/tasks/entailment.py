"""Entailment: a model of natural language inference classifies texts that it was never shown.

Each label is a hypothesis, "Este texto trata de {label}."; the answer is the one that the text
entails with the highest probability (Yin et al. 2019, https://aclanthology.org/D19-1404). The head
is the checkpoint's own, so it needs no training (`trainer.max_epochs=0`); training goes on from it
(Wang et al. 2021, https://arxiv.org/abs/2104.14690). An item is one window for each label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.tasks.classification import Classification
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.task import Task
from crosstune.tasks.verbalizers import check_patterns, check_words


@dataclass
class Entailment(Task):
    """The task of one data set; `classes` are its labels, sorted."""

    classes: list[str]
    templates: dict[str, str]  # language -> template
    names: dict[str, dict[str, str]]  # language -> label -> what stands in the template
    entailment: str  # the checkpoint's label for what follows from a text
    labels: list[str] = field(default_factory=list)  # the head's outputs are the checkpoint's own
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "label")

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[dict[str, Any]],
        templates: Any,
        names: Any,
        entailment: str = "entailment",
    ) -> "Entailment":
        """Return the task; `names` has one name for each language and label.

        `templates` has a sentence with the gap {label} for each language; `entailment` is the
        name of that output of the checkpoint's head, in small or capital letters.
        """
        checked = check_patterns(templates, "data.task.templates", ("label",), ("label",))
        words = check_words(names, "data.task.names", list(checked))
        named: dict[str, dict[str, str]] = {}
        for language, by_label in words.items():
            for label, each in by_label.items():
                if len(each) > 1:
                    place = f"data.task.names.{language}.{label}"
                    raise ConfigError(f"{place}={each}: give one name, in one sentence.")
            named[language] = {label: each[0] for label, each in by_label.items()}
        return cls(sorted(next(iter(named.values()))), checked, named, entailment)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives: those of classification."""
        return Classification(self.classes).metrics

    def faults_of(self, row: dict[str, Any]) -> list[str]:
        """Return what keeps a row from a hypothesis of its own."""
        if row["language"] not in self.templates:
            return [f"no template for its language: give data.task.templates.{row['language']}"]
        if row["label"] not in self.classes:
            return [f"label {row['label']!r} has no name in data.task.names"]
        return []

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw text of a row, for training a tokenizer."""
        return [row["text"]]

    def on_missing_head_weights(self, place: str, lost: Sequence[str]) -> None:
        """Refuse a checkpoint without the head that knows entailment.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{place} lacks {len(lost)} weights of its head, {lost[0]} among them: it never learnt "
            "natural language inference. Take a checkpoint that did (model=local model.path=DIR), "
            "or train one first: data=files_classification with data.text_pair."
        )

    def extend(self, model: PreTrainedModel) -> list[str]:
        """Add nothing, but refuse a model without an output for entailment.

        Raises:
            ConfigError: no label of the checkpoint's head bears the name.
        """
        self._column(model)
        return []

    def _column(self, model: Any) -> int:
        names: dict[int, str] = model.config.id2label
        for column, name in names.items():
            if name.casefold() == self.entailment.casefold():
                return int(column)
        raise ConfigError(
            f"data.task.entailment={self.entailment}: the model's head has the labels "
            f"{', '.join(names.values())}. Take a checkpoint of natural language inference "
            "(model=local model.path=DIR), or name its label."
        )

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return for each row one window a class, 1 as the label of its own and 0 of the others.

        Texts are cut, never a hypothesis.
        """
        hypotheses = {
            language: [template.format(label=self.names[language][name]) for name in self.classes]
            for language, template in self.templates.items()
        }
        second = [hypothesis for row in rows for hypothesis in hypotheses[row["language"]]]
        frames: Any = tokenizer([""] * len(set(second)), sorted(set(second)))["input_ids"]
        if (least := max(map(len, frames))) >= max_tokens:
            raise ConfigError(
                f"data.max_tokens={max_tokens}: a hypothesis of data.task.templates takes {least} "
                "sub-words without its text."
            )
        batch: Any = tokenizer(
            [row["text"] for row in rows for _ in self.classes],
            second,
            truncation="only_first",
            max_length=max_tokens,
            return_token_type_ids=True,
            return_attention_mask=False,
            verbose=False,
        )
        items = [item for item in range(len(rows)) for _ in self.classes]
        labels = [int(name == row["label"]) for row in rows for name in self.classes]
        cut = len({item for window, item in enumerate(items) if batch[window].overflowing})
        return concatenate(batch["input_ids"], batch["token_type_ids"], items, labels, cut)

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy of entailed or not, and the number of windows."""
        log_p = model(**batch["inputs"]).logits.float().log_softmax(-1)
        column, counted = self._column(model), batch["labels"] != IGNORE
        others = [n for n in range(log_p.shape[-1]) if n != column]
        odds = log_p[:, column] - log_p[:, others].logsumexp(-1)
        gold = batch["labels"][counted].float()
        total = binary_cross_entropy_with_logits(odds[counted], gold, reduction="sum")
        return total, counted.sum()

    def predict_batch(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return nothing but the log-probability of entailment of each window."""
        log_p = model(**batch["inputs"]).logits.float().log_softmax(-1)
        return [(None, score) for score in log_p[:, self._column(model)].tolist()]

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: EncodedDataset, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row: the class that is entailed most, and how surely."""
        found: dict[int, list[tuple[float, int]]] = {}
        for window, _, score in outputs:
            found.setdefault(int(encoded.items[window]), []).append((score, -window))
        best = {item: max(scores) for item, scores in found.items()}  # of equals, the first
        return [
            Prediction(
                item,
                rows[item]["id"],
                rows[item]["label"],
                self.classes[-window % len(self.classes)],
                score,
            )
            for item, (score, window) in best.items()
        ]

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return the scores and the report of classification, exact over all ranks."""
        return Classification(self.classes).measure(predictions, device)
