"""Metrics of tagging: precision, recall and F1 of the spans that tags mark, and of segmented words.

Also the recall of words that training never showed.
"""

import operator
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from crosstune.data.tag_schemes import read_spans
from crosstune.errors import DataError
from crosstune.tasks.metrics.classes import RATES, CountReport, compute_rates


class SpanReport(CountReport):
    """Count correct, predicted and gold spans per type; report their precision, recall and F1.

    A span is correct if type, start and end all agree. Equal to seqeval's default mode; macro and
    weighted means run over the types that occur in gold or prediction. "accuracy" is that of the
    tags. Without any span, gold or predicted, the rates are 0, as in seqeval.

    >>> metric = SpanReport(["LOC", "PER"])
    >>> metric.update([["B-PER", "O", "B-LOC"]], [["B-PER", "O", "O"]])
    >>> metric.compute()["report"]["micro"]
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666, 'support': 1}
    """

    def __init__(self, types: Sequence[str]) -> None:
        super().__init__(types, "span types")

    def update(self, predictions: Sequence[Sequence[str]], golds: Sequence[Sequence[str]]) -> None:
        """Count sentences of tags, as many predicted as gold in each."""
        types: tuple[list[str], list[str], list[str]] = ([], [], [])
        agreeing = 0
        for number, (guess, gold) in enumerate(zip(predictions, golds, strict=True)):
            if len(guess) != len(gold):
                sizes = f"{len(gold)} gold tags but {len(guess)} predicted ones"
                raise DataError([f"Sentence {number} of the batch has {sizes}, not as many."])
            agreeing += sum(map(operator.eq, guess, gold))
            predicted, true = read_spans(guess), read_spans(gold)
            for names, spans in zip(types, (predicted & true, predicted, true), strict=True):
                names += [name for name, _, _ in spans]
        self._add(*types, agreeing=agreeing, total=sum(map(len, golds)))

    def _scores(self, report: dict[str, Any], accuracy: float) -> dict[str, float]:
        scores = {rate: report["micro"][rate] for rate in ("f1", "precision", "recall")}
        scores |= {"macro_f1": report["macro"]["f1"], "weighted_f1": report["weighted"]["f1"]}
        return scores | {"accuracy": accuracy}


class WordReport(Metric):
    """Count correct, predicted and gold words, and how many of the gold ones train contains.

    A word is correct if its first and its last character both agree. The rates are those of the
    SIGHAN bakeoffs (https://aclanthology.org/I05-3017): `oov_recall` is the share of gold words
    outside of the training vocabulary that were predicted, `iv_recall` that of all other words;
    each is absent where there is no such word. The bakeoffs' own script aligns words with `diff`,
    which can match a word that occurs twice at the wrong position; here positions must agree.

    >>> metric = WordReport({"小", "明"})
    >>> metric.update([["小明", "喝", "茶"]], [["小", "明", "喝", "茶"]])
    >>> scores = metric.compute()["scores"]
    >>> scores["recall"], scores["oov_recall"], scores["iv_recall"]
    (0.5, 1.0, 0.0)
    """

    full_state_update = False
    counts: Tensor  # (5,): correct, predicted, gold; correct and gold of words not in train

    def __init__(self, vocabulary: Collection[str]) -> None:
        super().__init__()
        self.vocabulary = frozenset(vocabulary)
        self.add_state("counts", torch.zeros(5, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Sequence[str]], golds: Sequence[Sequence[str]]) -> None:
        """Count sentences of words; the characters of both sides are the same.

        Raises:
            DataError: the words of the two sides do not spell the same text.
        """
        counts = [0] * 5
        for number, (guess, gold) in enumerate(zip(predictions, golds, strict=True)):
            if "".join(guess) != "".join(gold):
                raise DataError([f"Sentence {number} of the batch: the words spell other texts."])
            true = _boundaries(gold)
            correct = set(_boundaries(guess)) & set(true)
            new = {b for b, word in zip(true, gold, strict=True) if word not in self.vocabulary}
            sizes = (len(correct), len(guess), len(gold), len(correct & new), len(new))
            counts = list(map(operator.add, counts, sizes))
        self.counts = self.counts + torch.tensor(counts, device=self.counts.device)

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        correct, predicted, gold, new_correct, new = self.counts.tolist()
        if not gold:
            return {"scores": {}, "report": {}}
        words = compute_rates(correct, predicted, gold)
        scores = {rate: words[rate] for rate in RATES}
        if new:
            scores["oov_recall"] = new_correct / new
        if gold > new:
            scores["iv_recall"] = (correct - new_correct) / (gold - new)
        return {"scores": scores, "report": {"words": words, "oov_words": new}}


def _boundaries(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return [start, end) of each word in characters."""
    return list(pairwise(accumulate(map(len, words), initial=0)))
