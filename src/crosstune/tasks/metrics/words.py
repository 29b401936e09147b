"""Segmented words: precision, recall and F1, and recall of words that training never showed.

Called by `tasks/tagging.py`, which turns tags of characters into words.
"""

import operator
from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from crosstune.errors import DataError
from crosstune.tasks.metrics.rates import RATES, rates


class WordReport(Metric):
    """Count words found, predicted and true, and how many of the true ones training showed.

    A word counts as found when its first and its last character both agree. The rates are those of
    the SIGHAN bakeoffs (https://aclanthology.org/I05-3017): `oov_recall` is the share of true words
    outside of the training vocabulary that were found, `iv_recall` that of the others; each is
    absent where there is no such word. The bakeoffs' own script aligns words with `diff`, which
    can match a word that stands twice at the wrong place; here a word is its place in the text.

    >>> metric = WordReport({"小", "明"})
    >>> metric.update([["小明", "喝", "茶"]], [["小", "明", "喝", "茶"]])
    >>> scores = metric.compute()["scores"]
    >>> scores["recall"], scores["oov_recall"], scores["iv_recall"]
    (0.5, 1.0, 0.0)
    """

    full_state_update = False
    counts: Tensor  # (5,): found, predicted, true; found and true of those training never showed

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
        for number, (guess, truth) in enumerate(zip(predictions, golds, strict=True)):
            if "".join(guess) != "".join(truth):
                raise DataError([f"Sentence {number} of the batch: the words spell other texts."])
            guessed, true = _places(guess), _places(truth)
            found = set(guessed) & set(true)
            new = {p for p, word in zip(true, truth, strict=True) if word not in self.vocabulary}
            sizes = (len(found), len(guess), len(truth), len(found & new), len(new))
            counts = list(map(operator.add, counts, sizes))
        self.counts = self.counts + torch.tensor(counts, device=self.counts.device)

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        found, predicted, gold, new_found, new = self.counts.tolist()
        if not gold:
            return {"scores": {}, "report": {}}
        words = rates(found, predicted, gold)
        scores = {rate: words[rate] for rate in RATES}
        if new:
            scores["oov_recall"] = new_found / new
        if gold > new:
            scores["iv_recall"] = (found - new_found) / (gold - new)
        return {"scores": scores, "report": {"words": words, "oov_words": new}}


def _places(words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the first character of each word and the one after its last."""
    return list(pairwise(accumulate(map(len, words), initial=0)))
