"""Precision, recall and F1 of the spans that tags mark."""

import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from crosstune.data.tag_schemes import read_spans
from crosstune.errors import DataError
from crosstune.tasks.metrics.rates import UNSEEN, check_names, report_rates


class SpanReport(Metric):
    """Count spans found, predicted and true per type; report their precision, recall and F1.

    A span counts as found when type, start and end all agree. Equal to seqeval's default mode;
    macro and weighted means run over the types that occur in gold or prediction. A span whose type
    is not among `types` counts under "<unseen>", and is never found. "accuracy" is that of the
    tags. Without any span, gold or predicted, the rates are 0, as in seqeval.

    >>> metric = SpanReport(["LOC", "PER"])
    >>> metric.update([["B-PER", "O", "B-LOC"]], [["B-PER", "O", "O"]])
    >>> metric.compute()["report"]["micro"]
    {'precision': 0.5, 'recall': 1.0, 'f1': 0.6666666666666666, 'support': 1}
    """

    full_state_update = False
    counts: Tensor  # (3, types + 1): found, predicted, gold; last column = types not listed
    tokens: Tensor  # (2,): tags that agree, all tags

    def __init__(self, types: Sequence[str]) -> None:
        super().__init__()
        self.types = check_names(types, "span types")
        shape = (3, len(self.types) + 1)
        self.add_state("counts", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Sequence[str]], golds: Sequence[Sequence[str]]) -> None:
        """Count sentences of tags, as many predicted as gold in each."""
        found, predicted, gold = Counter(), Counter(), Counter()
        agreeing = total = 0
        for number, (guess, truth) in enumerate(zip(predictions, golds, strict=True)):
            if len(guess) != len(truth):
                sizes = f"{len(truth)} gold tags but {len(guess)} predicted ones"
                raise DataError([f"Sentence {number} of the batch has {sizes}, not as many."])
            agreeing += sum(map(operator.eq, guess, truth))
            total += len(truth)
            guessed, true = read_spans(guess), read_spans(truth)
            found.update([kind for kind, _, _ in guessed & true])
            predicted.update([kind for kind, _, _ in guessed])
            gold.update([kind for kind, _, _ in true])
        counts = [self._row(found), self._row(predicted), self._row(gold)]
        counts[0][-1] = 0
        self.counts = self.counts + torch.tensor(counts, device=self.counts.device)
        self.tokens = self.tokens + torch.tensor([agreeing, total], device=self.tokens.device)

    def _row(self, counter: Counter[str]) -> list[int]:
        """Return the counts in the order of the types, then that of all others."""
        listed = [counter[kind] for kind in self.types]
        return [*listed, counter.total() - sum(listed)]

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        agreeing, total = self.tokens.tolist()
        if not total:
            return {"scores": {}, "report": {}}
        found, predicted, gold = self.counts.tolist()
        report = report_rates([*self.types, UNSEEN], found, predicted, gold)
        scores = {
            "f1": report["micro"]["f1"],
            "precision": report["micro"]["precision"],
            "recall": report["micro"]["recall"],
            "macro_f1": report["macro"]["f1"],
            "weighted_f1": report["weighted"]["f1"],
            "accuracy": agreeing / total,
        }
        return {"scores": scores, "report": report}
