"""Relations: the directed relation between two marked entities of a text.

Rows carry `text`, `label`, and `head` and `tail` as [start, end) character offsets. Both are
marked in the text by signs that every vocabulary has, so no embedding is new (Zhou & Chen 2022,
https://aclanthology.org/2022.aacl-short.21, after Baldini Soares et al. 2019,
https://aclanthology.org/P19-1279). Head: transformers' sequence classification.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedTokenizerBase

from crosstune.data.windows import UNSEEN, EncodedDataset, concatenate
from crosstune.errors import ConfigError, DataError, suggest
from crosstune.tasks.metrics.classes import RelationReport
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.sequence_classification import decode_labels, label_loss, read_labels
from crosstune.tasks.subwords import special_pieces
from crosstune.tasks.task import Task

RULES = ("plain", "semeval")
SIGNS = {"head": "@", "tail": "#"}
Span = tuple[int, int]  # first and one behind the last


@dataclass
class Relation(Task):
    """The task of one data set; `labels` are those of train, sorted."""

    labels: list[str]
    no_relation: str | None
    rule: str
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    peft_type: ClassVar[str] = "SEQ_CLS"
    columns: ClassVar[tuple[str, ...]] = ("text", "label")

    @classmethod
    def from_rows(
        cls, rows: Sequence[dict[str, Any]], no_relation: str | None = None, rule: str = "plain"
    ) -> "Relation":
        """Return the task with the labels that the training rows carry.

        `no_relation` is the label that says there is none: F1 leaves it out. `rule` is `plain` or
        `semeval`: whether the directions "(e1,e2)" and "(e2,e1)" of a relation are one class.
        """
        labels = sorted({row["label"] for row in rows})
        if len(labels) < 2:
            where = rows[0]["where"].rpartition(":")[0]
            raise DataError([f"{where}: train holds one label only, {labels[0]!r}"])
        if rule not in RULES:
            raise ConfigError(f"data.task.rule={rule}. {suggest(str(rule), RULES)}")
        if no_relation is not None and no_relation not in labels:
            raise ConfigError(
                f"data.task.no_relation={no_relation}: train never shows it. "
                f"{suggest(str(no_relation), labels)}"
            )
        return cls(labels, no_relation, rule)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        macro = ("macro_f1", "macro_precision", "macro_recall")
        return (*macro, "micro_f1", "micro_precision", "micro_recall", "accuracy")

    def labels_of(self, row: dict[str, Any]) -> list[str]:
        """Return the labels that a row carries."""
        return [row["label"]]

    def faults_of(self, row: dict[str, Any]) -> list[str]:
        """Return which of the two entities is no stretch of the text."""
        return [
            f"{name} is {row.get(name)!r}, not [start, end] inside a text of {len(row['text'])} "
            "characters"
            for name in SIGNS
            if not _is_span(row.get(name), row["text"])
        ]

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the marked text of a row: text and pair together make the item."""
        return [mark(row)[0]]

    def leakage_texts(self, row: dict[str, Any]) -> list[str]:
        """Return the text without its marks: another pair of it in train gives it away, too."""
        return [row["text"]]

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> EncodedDataset:
        """Return one window a row that holds both entities, the label's index as its label.

        Raises:
            DataError: two entities are too long for a window.
        """
        before, after = special_pieces(tokenizer)
        room = max_tokens - len(before) - len(after)
        marked = [mark(row) for row in rows]
        batch: Any = tokenizer(
            [text for text, _ in marked],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        ids: list[list[int]] = []
        faults: list[str] = []
        cut = 0
        for row, (_, spans), pieces, offsets in zip(
            rows, marked, batch["input_ids"], batch["offset_mapping"], strict=True
        ):
            head, tail = (_pieces_of(span, offsets) for span in spans)
            kept = keep(head, tail, len(pieces), room)
            if not kept:
                sizes = f"{head[1] - head[0]} and {tail[1] - tail[0]}"
                faults.append(
                    f"{row['where']}: head and tail have {sizes} sub-words with their marks, and "
                    f"do not fit into data.max_tokens={max_tokens}"
                )
            cut += len(kept) < len(pieces)
            ids.append([*before, *(pieces[place] for place in kept), *after])
        if faults:
            raise DataError(faults)
        index = {label: number for number, label in enumerate(self.labels)}
        labels = [index.get(row["label"], UNSEEN) for row in rows]
        return concatenate(
            ids, [[0] * len(window) for window in ids], range(len(rows)), labels, cut
        )

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
        """Return scores and the report by relation, exact over all ranks."""
        report = RelationReport(self.labels, self.no_relation, self.rule).to(device)
        report.update([p.prediction for p in predictions], [p.gold for p in predictions])
        return report.compute()


def mark(row: dict[str, Any]) -> tuple[str, list[Span]]:
    """Return a text with its entities marked, and where head and tail stand, marks included.

    Entities may hold, cross or equal each other. Space sets each mark apart, so that it becomes a
    sub-word of its own in every script.

    >>> mark({"text": "Ana vive en Lima.", "head": [0, 3], "tail": [12, 16]})
    ('@ Ana @ vive en # Lima # .', [(0, 7), (16, 24)])
    >>> mark({"text": "小明住北京", "head": [3, 5], "tail": [0, 2]})[0]
    '# 小明 # 住 @ 北京 @'
    """
    text, spans = row["text"], [row["head"], row["tail"]]
    # at one place an entity closes before another opens, and inner ones stand inside outer ones
    opening = [(start, 1, -end, which) for which, (start, end) in enumerate(spans)]
    closing = [(end, 0, -start, -which) for which, (start, end) in enumerate(spans)]
    signs = list(SIGNS.values())
    starts, ends = [0, 0], [0, 0]
    out, last = "", 0
    for place, opens, _, number in sorted([*opening, *closing]):
        out += text[last:place]
        out += " " if out and not out[-1].isspace() else ""
        which, last = abs(number), place
        if opens:
            starts[which] = len(out)
        out += signs[which]
        ends[which] = len(out)  # the closing mark comes last and stays
        out += " " if text[place : place + 1].strip() else ""
    return out + text[last:], list(zip(starts, ends, strict=True))


def keep(head: Span, tail: Span, count: int, room: int) -> list[int]:
    """Return which of `count` sub-words a window of `room` keeps; none if the entities do not fit.

    All if they fit; else both entities and, in equal shares, what stands around them; else both
    entities and, between them, what follows the first and precedes the second.

    >>> keep((2, 4), (5, 6), count=20, room=8)
    [0, 1, 2, 3, 4, 5, 6, 7]
    >>> keep((2, 4), (15, 16), count=20, room=6)
    [2, 3, 4, 13, 14, 15]
    """
    if count <= room:
        return list(range(count))
    (start, first_end), (second_start, _) = sorted([head, tail])
    end = max(head[1], tail[1])
    spare = room - (end - start)
    if spare >= 0:
        right = min(count - end, spare - min(start, spare // 2))
        left = min(start, spare - right)
        return list(range(start - left, end + right))
    spare = room - (first_end - start) - (end - second_start)
    if spare < 0 or second_start < first_end:
        return []
    after = spare // 2
    return [*range(start, first_end + after), *range(second_start - (spare - after), end)]


def _pieces_of(span: Span, offsets: Sequence[Span]) -> Span:
    """Return the sub-words that touch a stretch of characters."""
    touching = [
        number for number, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]
    ]
    return touching[0], touching[-1] + 1


def _is_span(span: Any, text: str) -> bool:
    whole = isinstance(span, list | tuple) and len(span) == 2
    if not whole or not all(type(place) is int for place in span):
        return False
    return 0 <= span[0] < span[1] <= len(text)
