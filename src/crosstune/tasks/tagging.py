"""Tagging: one tag a word (named entities, parts of speech, segmentation as tags).

Head: transformers' token classification. A word's first sub-word carries its tag (a bare word mark
of SentencePiece is passed over). Sentences longer than `data.max_tokens` become overlapping
windows in which each word is tagged exactly once, with context on both sides; no word is dropped.
A single word of more than half a window keeps its first sub-words; such sentences are counted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from crosstune.data.encoded import IGNORE, UNSEEN, Encoded, join
from crosstune.errors import ConfigError
from crosstune.metrics.classes import ClassReport
from crosstune.metrics.spans import SpanReport
from crosstune.tasks.pieces import carrier, special_pieces, split_words, windows
from crosstune.tasks.prediction import Output, Prediction
from crosstune.tasks.task import Task

SPAN_TAG = re.compile(r"O|[BIESM](-.+)?")
SCHEMES = ("spans", "tags")


@dataclass
class Tagging(Task):
    """The task of one data set; `labels` are the tags of train, sorted."""

    labels: list[str]
    scheme: str
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    peft_type: ClassVar[str] = "TOKEN_CLS"

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, Any]], scheme: str | None = None) -> "Tagging":
        """Return the task with the tags of the training rows.

        `scheme` is `spans` (entity or word F1) or `tags` (accuracy and F1 by tag); by default
        `spans` when every tag is O, or B, I, E, S or M with or without `-TYPE`.
        """
        labels = sorted({tag for row in rows for tag in row["tags"]})
        if scheme is None:
            scheme = "spans" if all(SPAN_TAG.fullmatch(tag) for tag in labels) else "tags"
        if scheme not in SCHEMES:
            raise ConfigError(f"data.task.scheme={scheme}. Allowed: {', '.join(SCHEMES)}, null.")
        return cls(labels, scheme)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores that `measure` gives."""
        if self.scheme == "spans":
            return ("f1", "precision", "recall", "macro_f1", "weighted_f1", "accuracy")
        averages = ("macro_f1", "micro_f1", "weighted_f1", "macro_precision", "macro_recall")
        return ("f1", "accuracy", *averages, "mcc")

    def labels_of(self, row: dict[str, Any]) -> list[str]:
        """Return the tags that a row carries."""
        return row["tags"]

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """Return the raw texts of a row, for training a tokenizer."""
        return [" ".join(row["words"])]

    def encode(
        self, rows: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> Encoded:
        """Return one window or more a row, labels on sub-words."""
        before, after = special_pieces(tokenizer)
        room = max_tokens - len(before) - len(after)
        index = {label: number for number, label in enumerate(self.labels)}
        ids: list[list[int]] = []
        labels: list[int] = []
        items: list[int] = []
        cut = 0
        for item, (row, words) in enumerate(zip(rows, split_words(rows, tokenizer), strict=True)):
            fits = sum(map(len, words)) <= room
            kept = words if fits else [pieces[: room // 2] for pieces in words]
            cut += kept != words
            carriers = [carrier(pieces, tokenizer) for pieces in kept]
            for window in windows([len(pieces) for pieces in kept], room):
                inside = [piece for w in range(window.first, window.last) for piece in kept[w]]
                ids.append([*before, *inside, *after])
                items.append(item)
                labels += [IGNORE] * len(before)
                for word in range(window.first, window.last):
                    marks = [IGNORE] * len(kept[word])
                    if window.core_first <= word < window.core_last:
                        marks[carriers[word]] = index.get(row["tags"][word], UNSEEN)
                    labels += marks
                labels += [IGNORE] * len(after)
        return join(ids, [[0] * len(window) for window in ids], items, labels, cut)

    def collate(
        self,
        encoded: Encoded,
        windows: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        draw: Any,
    ) -> dict[str, Any]:
        """Return inputs (B, L) and labels (B, L)."""
        pad_id: Any = tokenizer.pad_token_id
        return {"inputs": encoded.pad(windows, pad_id), "labels": encoded.pad_labels(windows)}

    def loss(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed cross entropy of logits (B, L, C) and the number of tagged words."""
        logits, labels = model(**batch["inputs"]).logits, batch["labels"]
        total = cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=IGNORE
        )
        return total, (labels != IGNORE).sum()

    def read_off(self, model: Any, batch: dict[str, Any]) -> list[tuple[Any, float]]:
        """Return, for each window, the best tag of each of its words and their log-probability."""
        logits, labels = model(**batch["inputs"]).logits, batch["labels"]
        scores, best = logits.float().log_softmax(-1).max(-1)
        carries = labels != IGNORE
        counts = carries.sum(-1).tolist()
        sums = (scores * carries).sum(-1).tolist()
        return list(zip(map(torch.Tensor.tolist, best[carries].split(counts)), sums, strict=True))

    def decode(
        self, rows: Sequence[dict[str, Any]], encoded: Encoded, outputs: Sequence[Output]
    ) -> list[Prediction]:
        """Return one prediction a row: the tags of its windows, in order."""
        found: dict[int, tuple[list[str], float]] = {}
        for window, best, score in sorted(outputs, key=lambda output: output[0]):
            item = int(encoded.items[window])
            tags, total = found.get(item, ([], 0.0))
            found[item] = (tags + [self.labels[b] for b in best], total + score)
        return [
            Prediction(item, rows[item]["id"], rows[item]["tags"], tags, score)
            for item, (tags, score) in found.items()
        ]

    def measure(self, predictions: Sequence[Prediction], device: torch.device) -> dict[str, Any]:
        """Return scores and the report by entity type or by tag, exact over all ranks."""
        if self.scheme == "spans":
            types = sorted({tag[2:] or "_" for tag in self.labels if tag != "O"})
            spans = SpanReport(types).to(device)
            spans.update([p.prediction for p in predictions], [p.gold for p in predictions])
            return spans.compute()
        report = ClassReport(self.labels).to(device)
        index = {label: number for number, label in enumerate(self.labels)}
        best = [index[tag] for p in predictions for tag in p.prediction]
        gold = [index.get(tag, UNSEEN) for p in predictions for tag in p.gold]
        as_tensor = partial(torch.tensor, dtype=torch.long, device=device)
        report.update(as_tensor(best), as_tensor(gold))
        result = report.compute()
        result["scores"]["f1"] = result["scores"]["micro_f1"]
        return result
