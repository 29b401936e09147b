"""The report of a classification: accuracy, rates per class and their means."""

import operator
from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from crosstune.metrics.rates import UNSEEN, check_names, report_rates


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
