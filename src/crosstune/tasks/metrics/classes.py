"""Reports of classifications: of one class an item, of sets of labels, of relations.

Each gives accuracy, rates per class and their means, exact for any split and any number of ranks.
Called by `tasks/`.
"""

import operator
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from crosstune.tasks.metrics.rates import RATES, UNSEEN, check_names, report_rates

DIRECTION = re.compile(r"\((e1,e2|e2,e1)\)$")


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
        self.labels = check_names(labels, "labels")
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
        report = report_rates([*self.labels, UNSEEN], correct, predicted, gold)
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


class LabelSetReport(Metric):
    """Count sets of labels; report F1 by label and its means, and how well whole sets agree.

    Micro, macro and weighted F1 run over labels, as in `ClassReport` over those that occur;
    "accuracy" is the share of sets that agree wholly. Over items run "samples_f1", the mean of
    2|P & G| / (|P| + |G|), and "jaccard", the mean of |P & G| / |P | G| (the accuracy of
    SemEval-2018 E-c, https://aclanthology.org/S18-1001); two empty sets agree, and count 1 in all
    three. Gold labels that are not listed count under "<unseen>", and are never found.

    >>> metric = LabelSetReport(["anger", "joy"])
    >>> metric.update([["joy"], []], [["anger", "joy"], []])
    >>> scores = metric.compute()["scores"]
    >>> scores["jaccard"], scores["accuracy"]
    (0.75, 0.5)
    """

    full_state_update = False
    counts: Tensor  # (3, labels + 1): found, predicted, gold; last column = labels not listed
    items: Tensor  # (2,): sets that agree wholly, all sets
    sums: Tensor  # (2,): of F1 and of the Jaccard index over items

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = check_names(labels, "labels")
        shape = (3, len(self.labels) + 1)
        self.add_state("counts", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("items", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Sequence[Sequence[str]], golds: Sequence[Sequence[str]]) -> None:
        """Count sets of labels, one predicted and one gold an item."""
        found, predicted, gold = Counter(), Counter(), Counter()
        agreeing, f1, jaccard = 0, 0.0, 0.0
        pairs = [(set(g), set(t)) for g, t in zip(predictions, golds, strict=True)]
        for guess, truth in pairs:
            both = guess & truth
            found.update(both)
            predicted.update(guess)
            gold.update(truth)
            agreeing += guess == truth
            f1 += 2 * len(both) / (len(guess) + len(truth)) if guess or truth else 1.0
            jaccard += len(both) / len(guess | truth) if guess or truth else 1.0
        as_tensor = partial(torch.tensor, device=self.counts.device)
        columns = [_in_order(counter, self.labels) for counter in (found, predicted, gold)]
        columns[0][-1] = 0
        self.counts = self.counts + as_tensor(columns)
        self.items = self.items + as_tensor([agreeing, len(pairs)])
        self.sums = self.sums + as_tensor([f1, jaccard], dtype=torch.float64)

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        agreeing, total = self.items.tolist()
        if not total:
            return {"scores": {}, "report": {}}
        report = report_rates([*self.labels, UNSEEN], *self.counts.tolist())
        f1, jaccard = (self.sums / total).tolist()
        means = {f"{mean}_f1": report[mean]["f1"] for mean in ("micro", "macro", "weighted")}
        own = {"samples_f1": f1, "jaccard": jaccard, "accuracy": agreeing / total}
        return {"scores": means | own, "report": report}


class RelationReport(Metric):
    """Count relations; report precision, recall and F1 over all but `no_relation`.

    By the rule `plain` each label is a class; micro F1 is then that of TACRED
    (https://aclanthology.org/D17-1004). By the rule `semeval`, that of SemEval-2010 Task 8
    (https://aclanthology.org/S10-1006), the two directions of a relation, labels that differ in
    "(e1,e2)" and "(e2,e1)" alone, are one class: an answer in the wrong direction is wrong, yet
    counts as predicted and as gold of that class, and relations without gold are left out of all
    means. "accuracy" is over all items and labels.

    >>> metric = RelationReport(["R(e1,e2)", "R(e2,e1)", "Other"], "Other", "semeval")
    >>> metric.update(["R(e1,e2)", "R(e2,e1)", "Other"], ["R(e1,e2)", "R(e1,e2)", "Other"])
    >>> metric.compute()["report"]["classes"]
    {'R': {'precision': 0.5, 'recall': 0.5, 'f1': 0.5, 'support': 2}}
    """

    full_state_update = False
    counts: Tensor  # (3, classes + 1): found, predicted, gold; last column = classes not listed
    items: Tensor  # (2,): labels that agree, all labels

    def __init__(self, labels: Sequence[str], no_relation: str | None, rule: str) -> None:
        super().__init__()
        self.no_relation, self.rule = no_relation, rule
        named = {self._class_of(label) for label in labels if label != no_relation}
        self.classes = check_names(sorted(named), "relations")
        shape = (3, len(self.classes) + 1)
        self.add_state("counts", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("items", torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def _class_of(self, label: str) -> str:
        return DIRECTION.sub("", label) if self.rule == "semeval" else label

    def update(self, predictions: Sequence[str], golds: Sequence[str]) -> None:
        """Count labels, one predicted and one gold an item."""
        right = [truth for guess, truth in zip(predictions, golds, strict=True) if guess == truth]
        columns = [
            Counter(self._class_of(label) for label in labels if label != self.no_relation)
            for labels in (right, predictions, golds)
        ]
        counts = [_in_order(counter, self.classes) for counter in columns]
        self.counts = self.counts + torch.tensor(counts, device=self.counts.device)
        items = [len(right), len(golds)]
        self.items = self.items + torch.tensor(items, device=self.counts.device)

    def compute(self) -> dict[str, Any]:
        """Return scores and report over all that was counted."""
        agreeing, total = self.items.tolist()
        if not total:
            return {"scores": {}, "report": {}}
        found, predicted, gold = self.counts.tolist()
        if self.rule == "semeval":
            predicted = [p if g else 0 for p, g in zip(predicted, gold, strict=True)]
        report = report_rates([*self.classes, UNSEEN], found, predicted, gold)
        means = {f"{m}_{r}": report[m][r] for m in ("macro", "micro") for r in RATES}
        return {"scores": means | {"accuracy": agreeing / total}, "report": report}


def _in_order(counter: Counter[str], names: Sequence[str]) -> list[int]:
    """Return the counts in the order of the names, then that of all others."""
    listed = [counter[name] for name in names]
    return [*listed, counter.total() - sum(listed)]


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
