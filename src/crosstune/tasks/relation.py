"""Relation classification: the directed relation between two marked entities of a text.

Both are enclosed in "@" and "#", which every vocabulary has, so no embedding is added (Zhou & Chen
2022, https://aclanthology.org/2022.aacl-short.21, after https://aclanthology.org/P19-1279).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from typing_extensions import override

from crosstune.data.windows import EncodedDataset, concatenate
from crosstune.errors import ConfigError, DataError, suggest
from crosstune.tasks.metrics.classes import MACRO_F1_ALL, RelationReport, add_unseen
from crosstune.tasks.sequence_classification import OneWindow, index_labels, train_labels
from crosstune.tasks.subwords import find_special_tokens
from crosstune.tasks.task import Predictions, Result, Row, Rows, Task, Tokenizer, run_metric

RULES = ("plain", "semeval")
MARKERS = {"head": "@", "tail": "#"}
Span = tuple[int, int]  # [start, end)


@dataclass
class Relation(OneWindow, Task):
    """The task of one data set; `labels` are those of train, sorted.

    Rows have `text`, `label`, and `head` and `tail` as [start, end) character offsets.
    """

    labels: list[str]
    no_relation: str | None
    rule: str
    columns = ("text", "label")

    @classmethod
    def from_rows(
        cls, rows: Rows, no_relation: str | None = None, rule: str = "plain"
    ) -> "Relation":
        """Return the task with the labels of the training rows.

        `no_relation` is the label that says there is none: F1 leaves it out. `rule` is `plain` or
        `semeval`: whether the directions "(e1,e2)" and "(e2,e1)" of a relation are one class.
        """
        labels = train_labels(rows)
        if rule not in RULES:
            raise ConfigError(f"data.task.rule={rule}. {suggest(str(rule), RULES)}")
        if no_relation is not None and no_relation not in labels:
            raise ConfigError(
                f"data.task.no_relation={no_relation}: train never shows it. "
                f"{suggest(str(no_relation), labels)}"
            )
        return cls(labels, no_relation, rule)

    @property
    @override
    def metrics(self) -> tuple[str, ...]:
        macro = ("macro_f1", MACRO_F1_ALL, "macro_precision", "macro_recall")
        return (*macro, "micro_f1", "micro_precision", "micro_recall", "accuracy")

    @override
    def row_labels(self, row: Row) -> list[str]:
        return [row["label"]]

    @override
    def find_row_faults(self, row: Row) -> list[str]:
        return [
            f"{name} is {row.get(name)!r}, not [start, end] inside a text of {len(row['text'])} "
            "characters"
            for name in MARKERS
            if not _is_span(row.get(name), row["text"])
        ]

    @override
    def row_texts(self, row: Row) -> list[str]:
        """Return the marked text of a row: text and entities together make the item."""
        return [insert_markers(row)[0]]

    @override
    def leakage_texts(self, row: Row) -> list[str]:
        """Return the text without markers: other entities of it in train leak it, too."""
        return [row["text"]]

    @override
    def encode(self, rows: Rows, tokenizer: Tokenizer, max_tokens: int) -> EncodedDataset:
        """Return one window a row that contains both entities, with the label's index.

        Raises:
            DataError: two entities are too long for a window.
        """
        before, after = find_special_tokens(tokenizer)
        room = max_tokens - len(before) - len(after)
        marked = [insert_markers(row) for row in rows]
        batch: Any = tokenizer(
            [text for text, _ in marked],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        ids: list[list[int]] = []
        faults: list[str] = []
        cut = 0
        for row, (_, spans), subwords, offsets in zip(
            rows, marked, batch["input_ids"], batch["offset_mapping"], strict=True
        ):
            head, tail = (_find_subwords(span, offsets) for span in spans)
            selected = select_subwords(head, tail, len(subwords), room)
            if not selected:
                sizes = f"{head[1] - head[0]} and {tail[1] - tail[0]}"
                faults.append(
                    f"{row['where']}: head and tail have {sizes} sub-words with their marks, and "
                    f"do not fit into data.max_tokens={max_tokens}"
                )
            cut += len(selected) < len(subwords)
            ids.append([*before, *(subwords[index] for index in selected), *after])
        if faults:
            raise DataError(faults)
        labels = index_labels(self.labels, [row["label"] for row in rows])
        types = [[0] * len(window) for window in ids]
        return concatenate(ids, types, range(len(rows)), labels, cut)

    @override
    def compute_metrics(self, predictions: Predictions, device: torch.device) -> Result:
        labels = add_unseen(self.labels, (p.gold for p in predictions))
        return run_metric(RelationReport(labels, self.no_relation, self.rule), predictions, device)


def insert_markers(row: Row) -> tuple[str, list[Span]]:
    """Return a text with its entities marked, and the spans of head and tail with their markers.

    Entities may contain, cross or equal each other. Spaces around each marker make it a sub-word by
    itself in every script.

    >>> insert_markers({"text": "Ana vive en Lima.", "head": [0, 3], "tail": [12, 16]})
    ('@ Ana @ vive en # Lima # .', [(0, 7), (16, 24)])
    >>> insert_markers({"text": "小明住北京", "head": [3, 5], "tail": [0, 2]})[0]
    '# 小明 # 住 @ 北京 @'
    """
    text, spans = row["text"], [row["head"], row["tail"]]
    # at one offset an entity closes before another opens, and inner ones are inside outer ones
    opening = [(start, 1, -end, entity) for entity, (start, end) in enumerate(spans)]
    closing = [(end, 0, -start, -entity) for entity, (start, end) in enumerate(spans)]
    markers = list(MARKERS.values())
    starts, ends = [0, 0], [0, 0]
    marked, last = "", 0
    for offset, opens, _, number in sorted([*opening, *closing]):
        marked += text[last:offset]
        marked += " " if marked and not marked[-1].isspace() else ""
        entity, last = abs(number), offset
        if opens:
            starts[entity] = len(marked)
        marked += markers[entity]
        ends[entity] = len(marked)  # the closing marker comes last and stays
        marked += " " if text[offset : offset + 1].strip() else ""
    return marked + text[last:], list(zip(starts, ends, strict=True))


def select_subwords(head: Span, tail: Span, count: int, room: int) -> list[int]:
    """Return which of `count` sub-words a window of `room` has; none if the entities do not fit.

    All if they fit; else both entities and, in equal shares, what is around them; else both
    entities and, between them, what follows the first and precedes the second.

    >>> select_subwords((2, 4), (5, 6), count=20, room=8)
    [0, 1, 2, 3, 4, 5, 6, 7]
    >>> select_subwords((2, 4), (15, 16), count=20, room=6)
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


def _find_subwords(span: Span, offsets: Sequence[Span]) -> Span:
    """Return the sub-words that overlap a span of characters."""
    overlapping = [
        number for number, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]
    ]
    return overlapping[0], overlapping[-1] + 1


def _is_span(span: Any, text: str) -> bool:
    pair = isinstance(span, list | tuple) and len(span) == 2
    if not pair or not all(type(offset) is int for offset in span):
        return False
    return 0 <= span[0] < span[1] <= len(text)
