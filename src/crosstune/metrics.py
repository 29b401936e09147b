"""Scores that torchmetrics lacks: class report, span report, masked-token loss.

Each is a torchmetrics `Metric` whose states are counts that add up, so the result is the same for
any split into batches and any number of ranks. `compute()` returns plain Python numbers:
`{"scores": {metric: value}, "report": {...}}`; both are empty when nothing was counted, because
what was not measured is absent, never 0. Turning logits into predictions is the work of `tasks/`.
"""

import operator
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from crosstune.errors import DataError

UNSEEN = "<unseen>"
RATES = ("precision", "recall", "f1")


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the spans that a sequence of tags marks, as (type, start, end), end exclusive.

    Reads IOB1, IOB2, IOBES and BMES leniently, as conlleval does: an ill-formed sequence still
    marks spans, and a change of type, a B or an S, or anything after an E or an S opens a new one.
    Tags without a type (word segmentation) mark spans of type "_".

    Raises:
        DataError: a tag is neither O nor one of B, I, E, S, M, alone or with "-type".

    >>> sorted(spans(["B-PER", "I-PER", "O", "I-LOC", "I-PER"]))
    [('LOC', 3, 4), ('PER', 0, 2), ('PER', 4, 5)]
    >>> sorted(spans(["B", "M", "E", "S"]))
    [('_', 0, 3), ('_', 3, 4)]
    """
    found = set()
    start, current, closed = 0, None, False
    for position, tag in enumerate(tags):
        kind, opens, closes = _read_tag(tag)
        if current is not None and (opens or closed or kind != current):
            found.add((current, start, position))
            current = None
        if current is None:
            start, current = position, kind
        closed = closes
    if current is not None:
        found.add((current, start, len(tags)))
    return found


@lru_cache(maxsize=4096)
def _read_tag(tag: str) -> tuple[str | None, bool, bool]:
    """Return a tag's type (None for O), whether it always opens a span, whether it closes one."""
    if tag == "O":
        return None, False, False
    mark, _, kind = tag.partition("-")
    if mark not in ("B", "I", "E", "S", "M"):
        allowed = 'O, and B, I, E, S or M, alone or followed by a hyphen and a type, as in "B-PER"'
        raise DataError([f"{tag!r} is not a tag of a span. Allowed: {allowed}."])
    return kind or "_", mark in ("B", "S"), mark in ("E", "S")


class ClassReport(Metric):
    """Count a confusion matrix; report accuracy, precision, recall, F1 and Matthews correlation.

    A gold label that training never saw (index -1, or beyond the labels) is an error whatever was
    predicted, and is reported as the class "<unseen>". Macro and weighted means run over the
    classes that occur in gold or prediction, as scikit-learn's `classification_report` does with
    `zero_division=0`; classes that do not occur are absent from the report. All scores are
    fractions but "mcc", which lies in [-1, 1].

    >>> metric = ClassReport(["no", "yes"])
    >>> metric.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 1, 0, -1]))
    >>> result = metric.compute()
    >>> result["scores"]["accuracy"], result["report"]["classes"]["<unseen>"]["support"]
    (0.5, 1)
    """

    full_state_update = False
    confusion: Tensor  # (gold labels + unseen, predicted labels)

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = _check_names(labels, "labels")
        shape = (len(self.labels) + 1, len(self.labels))
        self.add_state("confusion", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, gold: Tensor) -> None:
        """Count label indices, both (n,), without padding."""
        rows, columns = self.confusion.shape
        if prediction.shape != gold.shape:
            raise ValueError(f"prediction {prediction.shape} and gold {gold.shape} differ in shape")
        if ((prediction < 0) | (prediction >= columns)).any():
            raise ValueError(f"a prediction lies outside 0 to {columns - 1}: {prediction.tolist()}")
        if (gold < -1).any():
            raise ValueError("gold holds an index below -1: leave ignored positions out")
        row = torch.where((gold < 0) | (gold >= columns), columns, gold)
        cells = torch.bincount((row * columns + prediction).flatten(), minlength=rows * columns)
        self.confusion = self.confusion + cells.view(rows, columns)

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        correct = [*self.confusion.diagonal().tolist(), 0]
        predicted = [*self.confusion.sum(0).tolist(), 0]
        gold = self.confusion.sum(1).tolist()
        if not sum(gold):
            return {"scores": {}, "report": {}}
        report = _report([*self.labels, UNSEEN], correct, predicted, gold)
        scores = {
            "accuracy": sum(correct) / sum(gold),
            "macro_f1": report["macro"]["f1"],
            "micro_f1": report["micro"]["f1"],
            "weighted_f1": report["weighted"]["f1"],
            "macro_precision": report["macro"]["precision"],
            "macro_recall": report["macro"]["recall"],
            "mcc": _matthews(correct, predicted, gold),
        }
        return {"scores": scores, "report": report}


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
        self.types = _check_names(types, "span types")
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
            guessed, true = spans(guess), spans(truth)
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
        report = _report([*self.types, UNSEEN], found, predicted, gold)
        scores = {
            "f1": report["micro"]["f1"],
            "precision": report["micro"]["precision"],
            "recall": report["micro"]["recall"],
            "macro_f1": report["macro"]["f1"],
            "weighted_f1": report["weighted"]["f1"],
            "accuracy": agreeing / total,
        }
        return {"scores": scores, "report": report}


class TokenLoss(Metric):
    """Sum the loss of predicted tokens; report their accuracy, mean loss and perplexity.

    Losses are in nats; perplexity = exp(mean loss). The sum is kept in float64, so other batch
    splits move the result by its rounding only.

    >>> metric = TokenLoss()
    >>> metric.update(torch.tensor([0.0, 0.0]), torch.tensor([True, False]))
    >>> metric.compute()["report"]
    {'loss': 0.0, 'perplexity': 1.0, 'tokens': 2}
    """

    full_state_update = False
    loss: Tensor
    tokens: Tensor  # (2,): predicted right, all

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, loss: Tensor, correct: Tensor) -> None:
        """Add one loss and one truth value per predicted token, both (n,)."""
        if loss.shape != correct.shape:
            raise ValueError(f"loss {loss.shape} and correct {correct.shape} differ in shape")
        self.loss = self.loss + loss.double().sum()
        agreeing = correct.long().sum()
        self.tokens = self.tokens + torch.stack([agreeing, torch.full_like(agreeing, loss.numel())])

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        correct, tokens = self.tokens.tolist()
        if not tokens:
            return {"scores": {}, "report": {}}
        loss = self.loss / tokens
        report = {"loss": loss.item(), "perplexity": loss.exp().item(), "tokens": tokens}
        return {"scores": {"accuracy": correct / tokens}, "report": report}


def _check_names(names: Sequence[str], what: str) -> list[str]:
    """Return the names as a list, or refuse them."""
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if not names or repeated or UNSEEN in names:
        rule = f"at least one, all different, and none the reserved {UNSEEN!r}"
        raise DataError([f"The {what} must be {rule}. Received: {list(names)}."])
    return list(names)


def _rates(correct: int, predicted: int, gold: int) -> dict[str, float]:
    """Return precision, recall, F1 and support; a rate without a denominator is 0.

    >>> _rates(1, 2, 4)
    {'precision': 0.5, 'recall': 0.25, 'f1': 0.3333333333333333, 'support': 4}
    """
    return {
        "precision": correct / predicted if predicted else 0.0,
        "recall": correct / gold if gold else 0.0,
        "f1": 2 * correct / (predicted + gold) if predicted + gold else 0.0,
        "support": gold,
    }


def _report(
    names: list[str], correct: list[int], predicted: list[int], gold: list[int]
) -> dict[str, dict[str, Any]]:
    """Return rates per class that occurs, and their micro, macro and weighted means."""
    columns = zip(names, correct, predicted, gold, strict=True)
    classes = {name: _rates(c, p, g) for name, c, p, g in columns if p or g}
    support = sum(gold)
    macro = {
        rate: sum(row[rate] for row in classes.values()) / max(len(classes), 1) for rate in RATES
    }
    weighted = {
        rate: sum(row[rate] * row["support"] for row in classes.values()) / max(support, 1)
        for rate in RATES
    }
    return {
        "classes": classes,
        "micro": _rates(sum(correct), sum(predicted), support),
        "macro": macro | {"support": support},
        "weighted": weighted | {"support": support},
    }


def _matthews(correct: list[int], predicted: list[int], gold: list[int]) -> float:
    """Return the Matthews correlation of several classes, 0 where one side never varies.

    Gorodkin 2004, https://doi.org/10.1016/j.compbiolchem.2004.09.006: with n items, c of them
    correct, p and g the predicted and gold counts per class,
    (c n - p.g) / sqrt((n^2 - p.p) (n^2 - g.g)).

    >>> _matthews([2, 2], [2, 2], [2, 2])
    1.0
    """
    n = sum(gold)
    covariance = sum(correct) * n - sum(map(operator.mul, predicted, gold))
    spread = (n * n - sum(p * p for p in predicted)) * (n * n - sum(g * g for g in gold))
    return covariance / sqrt(spread) if spread else 0.0
