"""Zero-shot classification with a model of natural language inference.

Each label becomes a hypothesis, "Este texto trata de {label}."; the most entailed one is predicted
(Yin et al. 2019, https://aclanthology.org/D19-1404). The head is the checkpoint's, so training is
optional (`trainer.max_epochs=0`; Wang et al. 2021, https://arxiv.org/abs/2104.14690).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel
from typing_extensions import override

from crosstune.data.windows import IGNORE, EncodedDataset, concatenate
from crosstune.errors import ConfigError
from crosstune.tasks.classification import Classification
from crosstune.tasks.prediction import Prediction
from crosstune.tasks.task import Batch, Outputs, Predictions, Result, Row, Rows, Task, Tokenizer
from crosstune.tasks.verbalizers import check_patterns, check_words


@dataclass
class Entailment(Task):
    """The task of one data set; `classes` are its labels, sorted."""

    classes: list[str]
    templates: dict[str, str]  # language -> template
    names: dict[str, dict[str, str]]  # language -> label -> what the template says for it
    entailment: str  # the checkpoint's label for entailment
    labels: list[str] = field(default_factory=list)  # the head's outputs are the checkpoint's own
    auto_class = "AutoModelForSequenceClassification"
    peft_type = "SEQ_CLS"
    columns = ("text", "label")

    @classmethod
    def from_rows(
        cls, rows: Rows, templates: Any, names: Any, entailment: str = "entailment"
    ) -> "Entailment":
        """Return the task; `names` has one name for each language and label.

        `templates` has a sentence with the gap {label} for each language; `entailment` is the
        name of that output of the checkpoint's head, in any case.
        """
        checked = check_patterns(templates, "data.task.templates", ("label",), ("label",))
        words = check_words(names, "data.task.names", list(checked))
        for language, by_label in words.items():
            for label, each in by_label.items():
                if len(each) > 1:
                    option = f"data.task.names.{language}.{label}"
                    raise ConfigError(f"{option}={each}: give one name, in one sentence.")
        first = {
            language: {label: each[0] for label, each in by_label.items()}
            for language, by_label in words.items()
        }
        return cls(sorted(next(iter(first.values()))), checked, first, entailment)

    @property
    @override
    def metrics(self) -> tuple[str, ...]:
        return Classification(self.classes).metrics

    @override
    def find_row_faults(self, row: Row) -> list[str]:
        if row["language"] not in self.templates:
            return [f"no template for its language: give data.task.templates.{row['language']}"]
        if row["label"] not in self.classes:
            return [f"label {row['label']!r} has no name in data.task.names"]
        return []

    @override
    def row_texts(self, row: Row) -> list[str]:
        return [row["text"]]

    @override
    def on_missing_head_weights(self, source: str, missing: Sequence[str]) -> None:
        raise ConfigError(
            f"{source} lacks {len(missing)} weights of its head, {missing[0]} among them: it never "
            "learnt natural language inference. Take a checkpoint that did (model=local "
            "model.path=DIR), or train one first: data=files_classification with data.text_pair."
        )

    @override
    def add_modules(self, model: PreTrainedModel) -> list[str]:
        self._entailment_index(model)  # refuses a model without such an output
        return []

    def _entailment_index(self, model: Any) -> int:
        names: dict[int, str] = model.config.id2label
        for index, name in names.items():
            if name.casefold() == self.entailment.casefold():
                return int(index)
        raise ConfigError(
            f"data.task.entailment={self.entailment}: the model's head has the labels "
            f"{', '.join(names.values())}. Take a checkpoint of natural language inference "
            "(model=local model.path=DIR), or name its label."
        )

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return for each row one window a class, labelled 1 for its own class and 0 otherwise.

        Texts are cut, never a hypothesis.
        """
        by_language = {
            language: [template.format(label=self.names[language][name]) for name in self.classes]
            for language, template in self.templates.items()
        }
        hypotheses = [hypothesis for row in rows for hypothesis in by_language[row["language"]]]
        different = sorted(set(hypotheses))
        without_text: Any = tokenizer([""] * len(different), different)["input_ids"]
        if (most := max(map(len, without_text))) >= max_tokens:
            raise ConfigError(
                f"data.max_tokens={max_tokens}: a hypothesis of data.task.templates takes {most} "
                "sub-words without its text."
            )
        batch: Any = tokenizer(
            [row["text"] for row in rows for _ in self.classes],
            hypotheses,
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

    @override
    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy of entailed or not, and the number of windows."""
        log_p = model(**batch["inputs"]).logits.float().log_softmax(-1)
        entailed, counted = self._entailment_index(model), batch["labels"] != IGNORE
        rest = [index for index in range(log_p.shape[-1]) if index != entailed]
        log_odds = log_p[:, entailed] - log_p[:, rest].logsumexp(-1)
        gold = batch["labels"][counted].float()
        total = binary_cross_entropy_with_logits(log_odds[counted], gold, reduction="sum")
        return total, counted.sum()

    @override
    def predict_batch(self, model: Any, batch: Batch) -> list[tuple[Any, float]]:
        """Return, as the score of each window, the log-probability of entailment."""
        log_p = model(**batch["inputs"]).logits.float().log_softmax(-1)
        return [(None, score) for score in log_p[:, self._entailment_index(model)].tolist()]

    @override
    def decode(self, rows: Rows, encoded: EncodedDataset, outputs: Outputs) -> list[Prediction]:
        scores: dict[int, list[tuple[float, int]]] = {}
        for window, _, score in outputs:
            scores.setdefault(int(encoded.items[window]), []).append((score, -window))
        best = {item: max(pairs) for item, pairs in scores.items()}  # of equals, the first window
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

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        return Classification(self.classes).compute_metrics(predictions, device)
